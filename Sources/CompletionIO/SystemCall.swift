// One thin wrapper per system call: catch errno first, retry EINTR, return EAGAIN as a value, trap on the errors
// that only a bug of ours can cause. It must never know what a handle, a completion or a connection is.

import CLinux
import Glibc
import SystemPackage

/// What a system call that moves bytes or descriptors did.
package enum Outcome {
  /// It succeeded with this result: bytes moved, a descriptor, or 0.
  case done(Int)
  /// EAGAIN: nothing now, ask epoll.
  case wouldBlock
  /// Any other error that a peer, the network or a limit can cause.
  case failed(Errno)
}

extension Errno {
  /// The error's number as errno(3) has it, for those who do not import SystemPackage.
  public var number: CInt { rawValue }
}

/// The system calls of this library by name.
package enum SystemCall {
  /// Runs `call` until it is not interrupted.
  ///
  /// EBADF and EFAULT trap: they mean that a descriptor was used after its end, or memory that is not ours, and going
  /// on would hit somebody else's connection.
  @inline(__always)
  package static func retrying(_ call: () -> Int) -> Outcome {
    while true {
      let result = call()
      if result >= 0 { return .done(result) }
      let error = errno
      if error == EINTR { continue }
      if error == EAGAIN { return .wouldBlock }
      precondition(error != EBADF && error != EFAULT, "a system call was given a dead descriptor or foreign memory")
      return .failed(Errno(rawValue: error))
    }
  }

  /// Runs `call` until it is not interrupted and throws what it failed with, EAGAIN included.
  @inline(__always) @discardableResult
  package static func checked(_ call: () -> Int) throws(Errno) -> CInt {
    switch retrying(call) {
    case .done(let result): return CInt(truncatingIfNeeded: result)
    case .wouldBlock: throw .resourceTemporarilyUnavailable
    case .failed(let error): throw error
    }
  }

  /// recv(2), never waiting.
  @inline(__always)
  package static func receive(_ descriptor: CInt, into buffer: UnsafeMutableRawPointer, bytesMax: Int) -> Outcome {
    refusingInvalid(retrying { unsafe clinux_receive(descriptor, buffer, bytesMax) })
  }

  /// read(2).
  @inline(__always)
  package static func read(_ descriptor: CInt, into buffer: UnsafeMutableRawPointer, bytesMax: Int) -> Outcome {
    refusingInvalid(retrying { unsafe Glibc.read(descriptor, buffer, bytesMax) })
  }

  /// send(2), never waiting and never raising SIGPIPE.
  @inline(__always)
  package static func send(_ descriptor: CInt, from buffer: UnsafeRawPointer, bytes: Int) -> Outcome {
    refusingInvalid(retrying { unsafe clinux_send(descriptor, buffer, bytes) })
  }

  /// sendmsg(2) of several pieces, never waiting and never raising SIGPIPE.
  package static func send(_ descriptor: CInt, pieces: UnsafeBufferPointer<iovec>) -> Outcome {
    refusingInvalid(retrying { unsafe clinux_send_vector(descriptor, pieces.baseAddress, pieces.count) })
  }

  /// write(2). On a pipe without a reader it raises SIGPIPE unless the process ignores that signal.
  package static func write(_ descriptor: CInt, from buffer: UnsafeRawPointer, bytes: Int) -> Outcome {
    refusingInvalid(retrying { unsafe Glibc.write(descriptor, buffer, bytes) })
  }

  /// writev(2).
  package static func write(_ descriptor: CInt, pieces: UnsafeBufferPointer<iovec>) -> Outcome {
    refusingInvalid(retrying { unsafe Glibc.writev(descriptor, pieces.baseAddress, CInt(pieces.count)) })
  }

  /// splice(2) between a pipe and a socket. It raises SIGPIPE on a broken socket unless the process ignores that signal.
  package static func splice(from source: CInt, to target: CInt, bytesMax: Int) -> Outcome {
    retrying { clinux_splice(source, target, bytesMax) }
  }

  /// accept4(2): the new descriptor is non-blocking and closed on exec. EINVAL stays a value: another process that
  /// shares the listening socket may have shut it down.
  package static func accept(_ listener: CInt) -> Outcome {
    retrying { Int(clinux_accept(listener)) }
  }

  /// connect(2). An interrupted connect goes on by itself, so EINTR counts as in progress.
  package static func connect(_ descriptor: CInt, to address: SocketAddress) -> Outcome {
    let result = unsafe address.withSockAddr { unsafe Glibc.connect(descriptor, $0, $1) }
    if result == 0 { return .done(0) }
    let error = errno
    return error == EINPROGRESS || error == EINTR ? .wouldBlock : .failed(Errno(rawValue: error))
  }

  /// close(2). Linux frees the number whatever the call returns, so an error is not reported and EINTR not retried.
  package static func close(_ descriptor: CInt) {
    let result = Glibc.close(descriptor)
    precondition(result == 0 || errno != EBADF, "a descriptor was closed twice")
  }

  /// shutdown(2) of the write side; a peer that is already gone is no error.
  package static func shutdownWrite(_ descriptor: CInt) {
    let result = Glibc.shutdown(descriptor, CInt(SHUT_WR))
    precondition(result == 0 || errno != EBADF, "shutdown of a dead descriptor")
  }

  /// setsockopt(2) of an int.
  package static func setOption(_ descriptor: CInt, level: CInt, name: CInt, to value: CInt) throws(Errno) {
    try checked {
      unsafe withUnsafePointer(to: value) {
        unsafe Int(setsockopt(descriptor, level, name, $0, socklen_t(MemoryLayout<CInt>.size)))
      }
    }
  }

  /// getsockopt(2) of an int.
  package static func option(_ descriptor: CInt, level: CInt, name: CInt) throws(Errno) -> CInt {
    var value: CInt = 0
    var length = socklen_t(MemoryLayout<CInt>.size)
    try checked { unsafe Int(getsockopt(descriptor, level, name, &value, &length)) }
    return value
  }

  /// The socket's pending error (SO_ERROR of socket(7)), which this call clears; 0 when there is none.
  package static func pendingError(_ descriptor: CInt) -> CInt {
    (try? option(descriptor, level: SOL_SOCKET, name: SO_ERROR)) ?? 0
  }

  /// Makes the next close send a reset: SO_LINGER of 0 seconds (socket(7)). Sockets that have no reset ignore it.
  package static func lingerNot(_ descriptor: CInt) {
    let now = linger(l_onoff: 1, l_linger: 0)
    _ = unsafe withUnsafePointer(to: now) {
      unsafe setsockopt(descriptor, SOL_SOCKET, SO_LINGER, $0, socklen_t(MemoryLayout<linger>.size))
    }
  }

  /// CLOCK_MONOTONIC in nanoseconds: clock changes do not touch it.
  @inline(__always)
  package static func monotonicNanoseconds() -> UInt64 {
    var time = timespec()
    unsafe clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) &* 1_000_000_000 &+ UInt64(time.tv_nsec)
  }

  /// Errors of accept(2) that are the newcomer's: it went away, or its network did. The listener is as good as before.
  static func concernsOneConnection(_ error: Errno) -> Bool {
    switch error.rawValue {
    case ECONNABORTED, EPROTO, EPERM, ENETDOWN, ENOPROTOOPT, EHOSTDOWN, ENONET, EHOSTUNREACH, EOPNOTSUPP, ENETUNREACH:
      true
    default: false
    }
  }

  /// Descriptors or memory ran out, which only time or a close changes.
  static func isExhaustion(_ error: Errno) -> Bool {
    switch error.rawValue {
    case EMFILE, ENFILE, ENOBUFS, ENOMEM: true
    default: false
    }
  }

  /// EINVAL from a call that only moves bytes is a bug of ours.
  @inline(__always)
  private static func refusingInvalid(_ outcome: Outcome) -> Outcome {
    if case .failed(.invalidArgument) = outcome { preconditionFailure("a read or write that its descriptor cannot do") }
    return outcome
  }
}
