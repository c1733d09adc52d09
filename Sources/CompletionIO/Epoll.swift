// One epoll instance and the events of its last wait. It must never know what a key stands for.

import CLinux
import Glibc
import SystemPackage

/// An epoll instance with room for one wait's events. epoll(7).
@safe
struct Epoll: ~Copyable {
  /// Event bits, as in epoll_ctl(2).
  struct Events: OptionSet {
    let rawValue: UInt32
    static let readable = Events(rawValue: clinux_readable)
    static let writable = Events(rawValue: clinux_writable)
    /// An error or a hang-up; always reported, asked for or not.
    static let broken = Events(rawValue: clinux_broken)
    /// Report each change once instead of the state again and again.
    static let edge = Events(rawValue: clinux_edge)
    /// The peer has ended its side.
    static let ended = Events(rawValue: clinux_read_end)
    /// All that a relayed socket may report, each change once.
    static let relay: Events = [.readable, .writable, .ended, .edge]
    /// Of several epoll instances that watch one descriptor, wake not all.
    static let exclusive = Events(rawValue: clinux_exclusive)
  }

  private let descriptor: Descriptor
  private let events: UnsafeMutablePointer<epoll_event>
  private let eventsMax: CInt
  /// Events of the last wait that are not looked at yet.
  private var next: CInt = 0
  private var end: CInt = 0

  init(eventsMax: Int) throws(Errno) {
    descriptor = Descriptor(adopting: try SystemCall.checked { Int(clinux_epoll_create()) })
    self.eventsMax = CInt(eventsMax)
    unsafe events = .allocate(capacity: eventsMax)
  }

  consuming func close() {
    unsafe events.deallocate()
    descriptor.close()
  }

  /// EPOLL_CTL_ADD. Throws what the kernel's limits cause (ENOSPC, ENOMEM), and EPERM for what cannot be polled.
  func add(_ target: CInt, for interest: Events, key: UInt64) throws(Errno) {
    let epoll = descriptor.rawValue
    try SystemCall.checked { Int(clinux_epoll_change(epoll, EPOLL_CTL_ADD, target, interest.rawValue, key)) }
  }

  /// EPOLL_CTL_MOD, which cannot fail on a descriptor that was added.
  func modify(_ target: CInt, to interest: Events, key: UInt64) {
    let result = clinux_epoll_change(descriptor.rawValue, EPOLL_CTL_MOD, target, interest.rawValue, key)
    precondition(result == 0, "an associated descriptor is not in its epoll instance")
  }

  /// EPOLL_CTL_DEL, which cannot fail on a descriptor that was added.
  func remove(_ target: CInt) {
    let result = clinux_epoll_change(descriptor.rawValue, EPOLL_CTL_DEL, target, 0, 0)
    precondition(result == 0, "an associated descriptor is not in its epoll instance")
  }

  /// Whether events of the last wait are left.
  var hasEvents: Bool { next < end }

  /// Errors of epoll_wait(2) that only a wrong call of ours can cause; any other, like a signal's EINTR, is a wait with no
  /// events, after which the next turn asks again.
  private static let misuses = [EBADF, EFAULT, EINVAL, ENOSYS]

  /// Waits for events; an error of the system ends the wait with none. epoll_wait(2), nanoseconds, negative for ever.
  mutating func wait(nanoseconds: Int64) {
    let count = unsafe clinux_epoll_wait(descriptor.rawValue, events, eventsMax, nanoseconds)
    precondition(count >= 0 || !Epoll.misuses.contains(errno), "epoll_wait was misused")
    next = 0
    end = max(count, 0)
  }

  /// The key of the event that `takeEvent` would give.
  var nextKey: UInt64 { unsafe clinux_event_key(events, next) }

  /// The next event of the last wait; `hasEvents` must be true.
  mutating func takeEvent() -> Events {
    let bits = unsafe clinux_event_bits(events, next)
    next += 1
    return Events(rawValue: bits)
  }
}
