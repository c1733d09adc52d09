// The public face of the port: the completion-port model, call by call. Everything behind it is in PortState.

import Glibc
import SystemPackage

/// A completion port on Linux: operations are submitted on associated descriptors, and their completions are dequeued
/// in batches.
///
/// One thread owns a port and calls everything here; only `post` may be called from other threads. (The owner may
/// change as long as two threads never use the port at once.)
///
/// An operation is tried when it is submitted, or when epoll(7) says that it can succeed, and the port performs it: the
/// caller sees results, never readiness. A method on a key whose handle is closed does nothing, and `submit` answers
/// `.failed(.badFileDescriptor)`, so an owner need not know whether a handle still lives.
@safe
public final class CompletionPort: @unchecked Sendable {
  private let state: UnsafeMutablePointer<PortState>

  /// Opens a port. epoll_create1(2), eventfd(2).
  ///
  /// - Parameters:
  ///   - readBufferBytes: room for the reads of one batch, at least 16 KiB; a single read takes at most 64 KiB of it.
  ///   - eventsMax: ready descriptors of one batch, at least 1.
  public init(readBufferBytes: Int = defaultReadBufferBytes, eventsMax: Int = defaultEventsMax) throws(Errno) {
    precondition(eventsMax >= 1 && eventsMax <= 65536, "a batch of \(eventsMax) events")
    unsafe state = .allocate(capacity: 1)
    do {
      unsafe state.initialize(to: try PortState.open(readBufferBytes: readBufferBytes, eventsMax: eventsMax))
    } catch {
      unsafe state.deallocate()
      throw error
    }
  }

  /// Closes every descriptor that is still associated.
  deinit {
    unsafe state.move().close()
    unsafe state.deallocate()
  }

  /// The read buffer of a port by default: one batch of eight full reads, or of many thousand small ones. Pages that no
  /// read reached are not resident.
  public static let defaultReadBufferBytes = 512 * 1024

  /// The events of one batch by default: enough that a busy worker seldom waits, few enough that a batch of echoes
  /// takes about a millisecond.
  public static let defaultEventsMax = 256

  // MARK: handles

  /// Takes a descriptor over and names it. CreateIoCompletionPort with a handle.
  ///
  /// When this throws, the descriptor is closed: the kernel's limit of watched descriptors (`.noSpace`) or its memory
  /// is used up. Sockets should be non-blocking, but need not be.
  public func associate(_ descriptor: consuming Descriptor, as kind: HandleKind) throws(Errno) -> HandleKey {
    let number = descriptor.take()
    do {
      return try unsafe state.pointee.associate(number, as: kind)
    } catch {
      SystemCall.close(number)
      throw error
    }
  }

  /// Whether the key's handle is still open. A completion in a batch may belong to a handle that the owner closed
  /// earlier in the same batch; this tells.
  public func isCurrent(_ key: HandleKey) -> Bool { unsafe state.pointee.table.contains(key) }

  /// The handle's descriptor, still the port's own, for options and addresses; nil when the handle is closed.
  public func descriptor(of key: HandleKey) -> CInt? { unsafe state.pointee.table.find(key)?.pointee.descriptor }

  /// Ends what is submitted on the handle, without completions, and closes its descriptor. close(2).
  ///
  /// A socket's close with unread input makes the kernel send a reset, which can destroy output on its way to the peer:
  /// to end in good order, call `shutdownWrite` and read to the end of the stream first.
  public func close(_ key: HandleKey) {
    guard let descriptor = unsafe state.pointee.detach(key) else { return }
    SystemCall.close(descriptor)
    unsafe state.pointee.restIsOver = true
  }

  /// Closes a socket so that the peer sees a reset and unsent output is dropped: SO_LINGER with 0 seconds, socket(7).
  public func reset(_ key: HandleKey) {
    guard let descriptor = descriptor(of: key) else { return }
    SystemCall.lingerNot(descriptor)
    close(key)
  }

  /// Ends what is submitted on the handle, without completions, and gives its descriptor back, for another port to
  /// associate; nil when the handle is closed.
  public func dissociate(_ key: HandleKey) -> Descriptor? {
    guard let descriptor = unsafe state.pointee.detach(key) else { return nil }
    return Descriptor(adopting: descriptor)
  }

  /// Ends the output of a socket: the peer reads what was sent and then the end of the stream. shutdown(2), SHUT_WR.
  public func shutdownWrite(_ key: HandleKey) {
    guard let descriptor = descriptor(of: key) else { return }
    SystemCall.shutdownWrite(descriptor)
  }

  // MARK: operations

  /// Submits an operation.
  ///
  /// An operation that finishes at once is answered here and has no completion: the mode that Windows calls
  /// FILE_SKIP_COMPLETION_PORT_ON_SUCCESS.
  ///
  /// - `.read`: always `.pending`, then one `.read` completion. Submitting it again while one is pending changes
  ///   nothing.
  /// - `.write`: `.completed(n)` when at least one byte was taken, which may be fewer than asked for: advance and
  ///   submit again. `.pending` when the kernel took nothing: the port then remembers the *first* non-empty piece,
  ///   whose memory must stay unchanged and alive (as with OVERLAPPED) until the `.write` completion says how much of
  ///   it was sent, or until the handle is closed. One write at a time: another one while one is pending traps. Writing
  ///   nothing is `.completed(0)`.
  /// - `.accept`: `.pending`, then one `.accept` completion per connection until the handle is closed or `cancelRead`.
  ///   A completion with `.tooManyOpenFiles`, `.tooManyOpenFilesInSystem`, `.noBufferSpace` or `.noMemory` says that
  ///   the listener rests: for a second, or until this port closes a descriptor, or until `retryAccepts`. Another error
  ///   ends accepting.
  /// - `.connect`: `.completed(0)`, or `.pending` and one `.connect` completion. After a failure, close the handle.
  /// - `.relay(to:)`: `.pending`, then one `.relay` completion when the source has ended and the target has taken all of
  ///   it, or with an error: what was read and not taken is dropped then. Both are non-blocking sockets; the source has
  ///   no read submitted, and neither has a read while a direction of the pair was submitted, until `endRelays`. A
  ///   socket is relayed to one other, which may be relayed back. The target's own output may still wait when the
  ///   *other* direction is submitted; what is relayed to a socket comes behind what was written to it only if the
  ///   relay is submitted once that is out. On a socket whose peer is gone a relay may raise SIGPIPE, unless the
  ///   process ignores that signal. recv(2) and send(2), or splice(2).
  public func submit(_ operation: Operation, on key: HandleKey) -> Submission {
    unsafe state.pointee.submit(operation, on: key)
  }

  /// Submits a `.write` of one piece.
  public func submitWrite(_ bytes: UnsafeRawBufferPointer, on key: HandleKey) -> Submission {
    let piece = unsafe iovec(iov_base: UnsafeMutableRawPointer(mutating: bytes.baseAddress), iov_len: bytes.count)
    return unsafe withUnsafePointer(to: piece) { pointer in
      unsafe state.pointee.submit(.write(UnsafeBufferPointer(start: pointer, count: 1)), on: key)
    }
  }

  /// Sends what the kernel takes of `bytes` now, and waits for nothing: for memory that does not stay. No write may wait.
  ///
  /// - Returns: `.completed(n)`, 0 when the kernel takes nothing; what is left is the caller's to submit; or `.failed`. send(2).
  @inline(__always)
  public func sendNow(_ bytes: UnsafeRawBufferPointer, on key: HandleKey) -> Submission {
    unsafe state.pointee.sendNow(bytes, on: key)
  }

  /// How many pipes relays have open or keep for the next bulk; each is two descriptors. pipe(2).
  public var openPipes: Int { unsafe state.pointee.pipes.count }

  /// Lets relays have at most `count` pipes, and never more than 32; those beyond are closed, once they are empty. Without one a relay
  /// copies.
  public func limitPipes(_ count: Int) { unsafe state.pointee.pipes.limit(to: count) }

  /// Has the processor fetch what the port keeps of a handle, by its slot, while other handles are sent to.
  @inline(__always)
  package func prefetch(_ slot: UInt32) { unsafe state.pointee.table.prefetch(slot) }

  /// Takes a submitted `.read` back; what arrives stays in the kernel until the next one. On a listener, ends
  /// accepting. CancelIoEx.
  ///
  /// - Returns: whether it was still submitted; otherwise its completion is in the batch being handled, or there was none.
  @discardableResult
  public func cancelRead(_ key: HandleKey) -> Bool { unsafe state.pointee.cancelRead(key) }

  /// Ends the rest of listeners for which descriptors had run out. `close` here does that by itself; call this when
  /// another thread closed a descriptor.
  public func retryAccepts() { unsafe state.pointee.restIsOver = true }

  /// Limits how many connections the listeners of this port accept in one batch, from 1 to 64 (the default): for an owner
  /// with room for so many clients only, since what is accepted cannot be put back.
  public func limitAccepts(perBatch count: Int) {
    unsafe state.pointee.acceptsPerBatchMax = min(max(count, 1), PortLimits.acceptsMax)
  }

  // MARK: relays

  /// Bytes that the relay from this socket has moved; 0 when it is none.
  public func relayedBytes(from key: HandleKey) -> UInt64 { unsafe state.pointee.relayedBytes(from: key) }

  /// Bytes that all relays of the port have moved so far.
  public var relayedBytes: UInt64 { unsafe state.pointee.relayedBytes }

  /// When either direction of the socket's pair last moved something, or was submitted, by `now`; 0 when it has none.
  public func lastRelayed(_ key: HandleKey) -> UInt64 { unsafe state.pointee.lastRelayed(key) }

  /// Ends the relays between the socket and its other one, without completions; both are ordinary sockets again, with
  /// nothing submitted but a write that waits. Closing one of them does this too.
  ///
  /// - Parameter held: gets what was read from one of them and not taken by the other, to whom it still belongs: that
  ///   socket's key, and the bytes for the length of the call. It must not use the port.
  public func endRelays(of key: HandleKey, held: ((HandleKey, UnsafeRawBufferPointer) -> Void)? = nil) {
    unsafe state.pointee.endRelays(of: key, held: held)
  }

  // MARK: completions

  /// Waits for completions and returns a batch of them. GetQueuedCompletionStatusEx.
  ///
  /// The batch and the bytes its completions point to are valid until the next call. One batch has at most one read per
  /// handle. It may be empty before the time is up, when a signal arrived or the port had something of its own to do.
  ///
  /// - Parameter timeoutNanoseconds: how long to wait at most; 0 does not wait, a negative number waits for ever.
  public func dequeue(timeoutNanoseconds: Int64) -> UnsafeBufferPointer<Completion> {
    unsafe state.pointee.dequeue(timeoutNanoseconds: timeoutNanoseconds)
  }

  /// Sends a packet to the owner, who dequeues it as a completion of kind `.packet`. Any thread.
  /// PostQueuedCompletionStatus.
  ///
  /// Packets of one thread arrive in order. The queue has no bound of its own: how many packets may be on their way is
  /// the posters' to limit. Posting costs a system call only when the owner may be asleep, and then only once.
  public func post(_ packet: Packet) { unsafe state.pointee.wakeup.post(packet) }

  /// CLOCK_MONOTONIC in nanoseconds as of the last `dequeue`'s return.
  public var now: UInt64 { unsafe state.pointee.now }

  /// CLOCK_MONOTONIC in nanoseconds. clock_gettime(2).
  public static func clock() -> UInt64 { SystemCall.monotonicNanoseconds() }
}
