// The vocabulary of the port: what is submitted, what it answers, and what it delivers. Plain values only; it must
// never know how a completion comes about.

import Glibc
import SystemPackage

/// What an associated descriptor is, which decides by which system calls it is read and written.
public enum HandleKind: UInt8, Sendable {
  /// A connected stream socket, or one that `.connect` will connect: recv(2), send(2) and sendmsg(2), never SIGPIPE.
  case socket
  /// A pipe, terminal, inotify, signalfd, timerfd, eventfd or regular file: read(2), write(2) and writev(2).
  ///
  /// A descriptor that is not O_NONBLOCK is read only when it is ready, but a write to it may wait. A write to a pipe
  /// without a reader raises SIGPIPE unless the process ignores that signal. A regular file is always ready.
  case file
  /// A listening socket: accept4(2).
  case listener
}

/// An operation to submit on a handle.
@safe
public enum Operation {
  /// One read into the port's read buffer. It is over with its completion.
  case read
  /// Accepting, which goes on by itself until the handle is closed or `cancelRead` ends it.
  case accept
  /// Connecting an unconnected socket. The address lies apart, so that the other operations are two words.
  indirect case connect(SocketAddress)
  /// Moving what a connected socket receives to another one until it ends; see `CompletionPort.submit`.
  case relay(to: HandleKey)
  /// Writing these pieces in order. At most IOV_MAX (1,024) of them are looked at.
  case write(UnsafeBufferPointer<iovec>)
}

/// The port's immediate answer to a submitted operation.
public enum Submission: Equatable, Sendable {
  /// A completion will follow.
  case pending
  /// Done at once, with this result; no completion follows.
  case completed(Int)
  /// Failed at once; no completion follows.
  case failed(Errno)
}

/// Sixteen bytes of the caller's choice that `CompletionPort.post` sends to the port's owner.
public struct Packet: Hashable, Sendable {
  /// The caller's choice, commonly what kind of packet it is.
  public var key: UInt64
  /// The caller's choice, commonly a retained object's address.
  public var value: UInt64

  /// A packet of these two words.
  public init(key: UInt64, value: UInt64) {
    self.key = key
    self.value = value
  }
}

/// One finished operation, or one posted packet. Trivial; 32 bytes.
public struct Completion {
  /// Which operation finished.
  public enum Kind: UInt8, Sendable {
    /// A read: `bytes`, or the end of the stream when there are none and no error.
    case read
    /// A pending write: `count` bytes of its first piece went out.
    case write
    /// A new connection: `count` is its descriptor's number, which the receiver now owns.
    case accept
    /// A connect: done, or failed with `error`.
    case connect
    /// A relay: the source has ended and the target has taken everything, or it failed with `error`.
    case relay
    /// The connection broke, or both its directions ended, while nothing was submitted on it.
    case hangup
    /// A posted `packet`; there is no handle.
    case packet
  }

  /// Which operation finished.
  public let kind: Kind
  /// The error's number, 0 for none.
  public let errorNumber: CInt
  /// The handle, `.none` for a packet.
  public let key: HandleKey
  /// The count, or the packet's first word.
  private let first: UInt64
  /// The address of the bytes, or the packet's second word.
  private let second: UInt64

  /// What the operation failed with.
  public var error: Errno? { errorNumber == 0 ? nil : Errno(rawValue: errorNumber) }

  /// Read and write: bytes moved. Accept: the new descriptor's number. Otherwise 0.
  public var count: Int { kind == .packet || kind == .relay ? 0 : Int(truncatingIfNeeded: first) }

  /// Relay: whether the error is the target's and not the source's own.
  public var isOfTarget: Bool { kind == .relay && first == 1 }

  /// Read: what arrived, in the port's own buffer, valid until the next `dequeue`. Otherwise empty.
  public var bytes: UnsafeRawBufferPointer {
    unsafe kind == .read
      ? UnsafeRawBufferPointer(start: UnsafeRawPointer(bitPattern: UInt(second)), count: Int(truncatingIfNeeded: first))
      : UnsafeRawBufferPointer(start: nil, count: 0)
  }

  /// The posted packet; only of a completion of that kind.
  public var packet: Packet {
    precondition(kind == .packet, "only a packet's completion carries a packet")
    return Packet(key: first, value: second)
  }

  init(_ kind: Kind, _ key: HandleKey, count: Int = 0, bytes: UnsafeRawPointer? = nil, errorNumber: CInt = 0) {
    self.kind = kind
    self.errorNumber = errorNumber
    self.key = key
    first = UInt64(count)
    second = UInt64(UInt(bitPattern: bytes))
  }

  init(_ packet: Packet) {
    kind = .packet
    errorNumber = 0
    key = .none
    first = packet.key
    second = packet.value
  }
}
