// Submitting: try at once, and remember only what has to wait. It must never deliver completions.

import CLinux
import Glibc
import SystemPackage

extension PortState {
  /// sendmsg(2) and writev(2) take at most this many pieces: IOV_MAX of limits.h.
  private static let piecesMax = 1024

  @inline(__always)
  mutating func submit(_ operation: Operation, on key: HandleKey) -> Submission {
    guard let state = unsafe table.find(key) else { return .failed(.badFileDescriptor) }
    switch operation {
    case .read: return unsafe submitRead(state, key)
    case .write(let pieces): return unsafe submitWrite(pieces, state, key)
    case .accept: return unsafe submitAccept(state, key)
    case .connect(let address): return unsafe submitConnect(to: address, state, key)
    case .relay(let target): return unsafe submitRelay(to: target, state, key)
    }
  }

  /// Only notes the read: what is readable shows at the next wait, and one recv(2) per message is enough.
  @inline(__always)
  mutating func submitRead(_ state: UnsafeMutablePointer<HandleState>, _ key: HandleKey) -> Submission {
    unsafe precondition(state.pointee.kind != .listener, "a listener accepts, it is not read")
    unsafe assert(!state.pointee.flags.contains(.relayed), "a relayed socket is not read")
    let interest = unsafe state.pointee.interest
    if unsafe !interest.contains(.readable) && !state.pointee.flags.contains(.connecting) {
      do { try unsafe watch(state, key, for: interest.union(.readable)) } catch { return .failed(error) }
    }
    unsafe state.pointee.flags.insert(.reading)
    return .pending
  }

  private mutating func submitAccept(_ state: UnsafeMutablePointer<HandleState>, _ key: HandleKey) -> Submission {
    unsafe precondition(state.pointee.kind == .listener, "only a listener accepts")
    if unsafe !state.pointee.flags.contains(.exhausted) {
      do { try unsafe watch(state, key, for: [.readable, .exclusive]) } catch { return .failed(error) }
    }
    unsafe state.pointee.flags.insert(.reading)
    return .pending
  }

  /// Sends what the kernel takes now; when that is nothing, waits with the first piece.
  @inline(__always)
  mutating func submitWrite(
    _ pieces: UnsafeBufferPointer<iovec>, _ state: UnsafeMutablePointer<HandleState>, _ key: HandleKey
  ) -> Submission {
    unsafe precondition(!state.pointee.flags.contains(.writing), "a write was submitted while another one waits")
    guard let first = unsafe pieces.firstIndex(where: { unsafe $0.iov_len > 0 }),
      let base = unsafe pieces[first].iov_base
    else {
      return .completed(0)
    }
    let bytes = unsafe pieces[first].iov_len
    let outcome: Outcome
    if pieces.count == first + 1 {
      outcome = unsafe transmit(base, bytes, state)
    } else {
      let some = unsafe UnsafeBufferPointer(rebasing: pieces[first..<min(pieces.count, first + Self.piecesMax)])
      let descriptor = unsafe state.pointee.descriptor
      outcome =
        unsafe state.pointee.kind == .socket
        ? SystemCall.send(descriptor, pieces: some) : SystemCall.write(descriptor, pieces: some)
    }
    switch outcome {
    case .done(let count): return .completed(count)
    case .failed(let error): return .failed(error)
    case .wouldBlock:
      do { try unsafe watch(state, key, for: state.pointee.interest.union(.writable)) } catch { return .failed(error) }
      unsafe state.pointee.flags.insert(.writing)
      unsafe state.pointee.writeBase = UnsafeRawPointer(base)
      unsafe state.pointee.writeBytes = bytes
      return .pending
    }
  }

  /// As a write of one piece that never waits.
  @inline(__always)
  func sendNow(_ bytes: UnsafeRawBufferPointer, on key: HandleKey) -> Submission {
    guard let state = unsafe table.find(key) else { return .failed(.badFileDescriptor) }
    unsafe precondition(!state.pointee.flags.contains(.writing), "bytes were sent past a write that waits")
    guard let base = bytes.baseAddress, bytes.count > 0 else { return .completed(0) }
    switch unsafe transmit(base, bytes.count, state) {
    case .done(let count): return .completed(count)
    case .wouldBlock: return .completed(0)
    case .failed(let error): return .failed(error)
    }
  }

  /// One piece, by the call that suits the descriptor.
  @inline(__always)
  func transmit(_ base: UnsafeRawPointer, _ bytes: Int, _ state: UnsafeMutablePointer<HandleState>) -> Outcome {
    unsafe state.pointee.kind == .socket
      ? SystemCall.send(state.pointee.descriptor, from: base, bytes: bytes)
      : SystemCall.write(state.pointee.descriptor, from: base, bytes: bytes)
  }

  private mutating func submitConnect(
    to address: SocketAddress, _ state: UnsafeMutablePointer<HandleState>, _ key: HandleKey
  ) -> Submission {
    unsafe precondition(state.pointee.kind == .socket, "only a socket connects")
    switch unsafe SystemCall.connect(state.pointee.descriptor, to: address) {
    case .done: return .completed(0)
    case .failed(let error): return .failed(error)
    case .wouldBlock:
      do { try unsafe watch(state, key, for: .writable) } catch { return .failed(error) }
      unsafe state.pointee.flags.insert(.connecting)
      return .pending
    }
  }

  /// Forgets a submitted read, or ends accepting. Readiness that shows later disarms itself then.
  mutating func cancelRead(_ key: HandleKey) -> Bool {
    guard let state = unsafe table.find(key) else { return false }
    let wasReading = unsafe state.pointee.flags.contains(.reading)
    unsafe state.pointee.flags.remove(.reading)
    guard unsafe state.pointee.kind == .listener else { return wasReading }
    unsafe unwatch(state)
    if unsafe state.pointee.flags.contains(.exhausted) {
      unsafe state.pointee.flags.remove(.exhausted)
      resting.removeAll { $0 == key }
    }
    return wasReading
  }
}
