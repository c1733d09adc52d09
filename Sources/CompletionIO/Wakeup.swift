// The one door into a port for other threads: a queue of packets, and an eventfd that ends the owner's sleep. It must
// never know handles or operations.

import CLinux
import Glibc
import Synchronization
import SystemPackage

/// Packets on their way to the thread that owns a port.
///
/// The eventfd is written only when the owner may be asleep. The owner says "asleep" and then looks at the queue again;
/// a poster appends to the queue and then looks whether the owner said so: whichever comes second sees the other. All
/// four steps are sequentially consistent, which this needs.
@safe
struct Wakeup: ~Copyable {
  /// Room that a packet queue keeps after a burst: 64 KiB of packets, a few turns' worth.
  static let keptCapacity = 4096

  /// Readable when the owner must wake up. Watched edge-triggered, so that nobody has to read it: every write is an
  /// edge of its own, and 2^64 writes do not happen.
  let descriptor: Descriptor
  private let asleep = Atomic<Bool>(false)
  /// Packets in `arriving`, readable without the lock.
  private let arrivingCount = Atomic<Int>(0)
  private let lock = ThreadLock()
  /// Posted and not yet taken over by the owner; under the lock.
  private let arriving: UnsafeMutablePointer<PacketQueue>
  /// Taken over by the owner; the owner's alone.
  private let taken: UnsafeMutablePointer<PacketQueue>

  init() throws(Errno) {
    descriptor = Descriptor(adopting: try SystemCall.checked { Int(clinux_eventfd()) })
    unsafe arriving = .allocate(capacity: 1)
    unsafe arriving.initialize(to: PacketQueue())
    unsafe taken = .allocate(capacity: 1)
    unsafe taken.initialize(to: PacketQueue())
  }

  consuming func close() {
    unsafe arriving.pointee.free()
    unsafe taken.pointee.free()
    unsafe arriving.deallocate()
    unsafe taken.deallocate()
    descriptor.close()
  }

  /// Queues a packet and wakes the owner if it may be asleep. Any thread.
  func post(_ packet: Packet) {
    lock.withLock {
      unsafe arriving.pointee.append(packet)
      unsafe arrivingCount.store(arriving.pointee.count, ordering: .sequentiallyConsistent)
    }
    guard asleep.load(ordering: .sequentiallyConsistent) else { return }
    guard asleep.exchange(false, ordering: .sequentiallyConsistent) else { return }
    var one: UInt64 = 1
    let result = unsafe Glibc.write(descriptor.rawValue, &one, 8)
    precondition(result == 8, "the wake-up descriptor was misused")
  }

  /// Whether packets wait. The owner's.
  @inline(__always)
  var hasPackets: Bool {
    unsafe taken.pointee.count > 0 || arrivingCount.load(ordering: .sequentiallyConsistent) > 0
  }

  /// Announces that the owner goes to sleep; false when packets are waiting, so that it must not.
  @inline(__always)
  func prepareToSleep() -> Bool {
    asleep.store(true, ordering: .sequentiallyConsistent)
    return !hasPackets
  }

  /// The owner is awake. A poster that still saw it asleep writes once for nothing, which is harmless.
  @inline(__always)
  func awake() { asleep.store(false, ordering: .relaxed) }

  /// The oldest packet, or nil. The owner's.
  @inline(__always)
  func take() -> Packet? {
    if unsafe taken.pointee.count == 0 {
      guard arrivingCount.load(ordering: .relaxed) > 0 else { return nil }
      unsafe taken.pointee.reset(keeping: Self.keptCapacity)
      lock.withLock {
        unsafe swap(&arriving.pointee, &taken.pointee)
        arrivingCount.store(0, ordering: .sequentiallyConsistent)
      }
    }
    return unsafe taken.pointee.takeFirst()
  }
}

/// A queue that is filled and then emptied: a flat array with a cursor.
@safe
private struct PacketQueue {
  private var packets: UnsafeMutablePointer<Packet>?
  private var capacity = 0
  private var first = 0
  private var end = 0

  var count: Int { end - first }

  mutating func append(_ packet: Packet) {
    if end == capacity { grow() }
    unsafe (packets! + end).initialize(to: packet)
    end += 1
  }

  mutating func takeFirst() -> Packet? {
    guard first < end else { return nil }
    first += 1
    return unsafe packets![first - 1]
  }

  /// Starts over; gives memory back that only a burst needed.
  mutating func reset(keeping kept: Int) {
    if capacity > kept { free() }
    first = 0
    end = 0
  }

  mutating func free() {
    unsafe packets?.deallocate()
    self = PacketQueue()
  }

  private mutating func grow() {
    let larger = UnsafeMutablePointer<Packet>.allocate(capacity: max(64, capacity * 2))
    if let packets = unsafe packets {
      unsafe larger.moveInitialize(from: packets, count: end)
      unsafe packets.deallocate()
    }
    unsafe packets = larger
    capacity = max(64, capacity * 2)
  }
}
