// moonport.pipe: two connections pass their bytes on to each other, by the port and without Lua, until both have ended. What
// they had received or queued before comes first. The bytes do not need the coroutine that waits for the end: if that is ended
// by a reload, they go on.

import Codecs
import CompletionIO
import LuaRuntime

extension Worker {
  // MARK: Beginning

  func pipeFromScript(_ call: HostCall) {
    if refuseWaitIfEnding(call) { return }
    let keys = unsafe (key(call[0]), key(call[1]))
    spreadBeforeUse(of: keys.0)
    spreadBeforeUse(of: keys.1)
    if keys.0 == keys.1 { return unsafe call.raises(.text("pipe: the two connections are the same one")) }
    guard let first = unsafe table.find(keys.0), let second = unsafe table.find(keys.1), unsafe first.pointee.isUsable,
      unsafe second.pointee.isUsable
    else { return unsafe call.returns(.nil, .text("closed"), .integer(0), .integer(0)) }
    if unsafe first.pointee.flags.union(second.pointee.flags).contains(.piped) {
      return unsafe call.returns(.nil, .text("piped"), .integer(0), .integer(0))
    }
    if unsafe first.pointee.receiver != .none || second.pointee.receiver != .none {
      return unsafe call.raises(.text("pipe: another coroutine receives from one of the connections"))
    }
    guard let ticket = wait(call, for: .elsewhere) else { return }
    tasks[ticket.token].wait = unsafe .answer(.pipe(beginPipe(first, second, ticket)))
  }

  private func key(_ value: LuaValue) -> HandleKey { unsafe ConnectionID(rawValue: value.asConnection ?? 0).key }

  private func beginPipe(
    _ first: UnsafeMutablePointer<Connection>, _ second: UnsafeMutablePointer<Connection>, _ ticket: WaitTicket
  ) -> Int32 {
    let pipe = unsafe Pipe(
      first: PipeSide(key: first.pointee.key), second: PipeSide(key: second.pointee.key), ticket: ticket)
    let index = pipes.insert(pipe)
    unsafe stopHandling(first, index)
    unsafe stopHandling(second, index)
    unsafe passOnReceived(first, to: second)
    unsafe passOnReceived(second, to: first)
    // Once what is queued is out, each direction begins.
    unsafe markDirty(first)
    unsafe markDirty(second)
    return index
  }

  /// Takes a connection out of the handlers' hands.
  private func stopHandling(_ connection: UnsafeMutablePointer<Connection>, _ index: Int32) {
    unsafe connection.pointee.pipe = index
    unsafe connection.pointee.flags.insert(.piped)
    unsafe connection.pointee.flags.subtract(.paused)
    unsafe connection.pointee.lastMessageAt = now
    unsafe connection.pointee.messageBegunAt = 0
    if unsafe connection.pointee.flags.contains(.reading) {
      // A read that cannot be taken back is in the batch being handled.
      let key = unsafe connection.pointee.key
      if port.cancelRead(key) {
        unsafe connection.pointee.flags.remove(.reading)
      } else {
        pipes[index].update(key) { $0.awaitsRead = true }
      }
    }
  }

  /// Queues what a connection has received, and no handler has had, for the other one.
  private func passOnReceived(
    _ connection: UnsafeMutablePointer<Connection>, to other: UnsafeMutablePointer<Connection>
  ) {
    let bytes = unsafe unconsumed(connection)
    unsafe passOn(bytes, from: connection, to: other)
    unsafe connection.pointee.decoder.reset()
    unsafe skip(connection, bytes.count)
  }

  private func passOn(
    _ bytes: UnsafeRawBufferPointer, from connection: UnsafeMutablePointer<Connection>,
    to other: UnsafeMutablePointer<Connection>
  ) {
    guard let base = bytes.baseAddress, bytes.count > 0 else { return }
    unsafe other.pointee.output.reserve(bytes.count, pool: pool)
      .copyMemory(from: base, byteCount: bytes.count)
    unsafe pipes[connection.pointee.pipe].update(connection.pointee.key) { $0.passedBytes += Int64(bytes.count) }
  }

  /// The other connection of a pair.
  private func other(_ connection: UnsafeMutablePointer<Connection>) -> UnsafeMutablePointer<Connection> {
    let key = unsafe pipes[connection.pointee.pipe].other(than: connection.pointee.key).key
    guard let other = unsafe table.find(key) else { preconditionFailure("half a pipe") }
    return unsafe other
  }

  /// A read that was on its way when the pipe began.
  func receivedPiped(_ connection: UnsafeMutablePointer<Connection>, _ completion: Completion) {
    let target = unsafe other(connection)
    unsafe pipes[connection.pointee.pipe].update(completion.key) { $0.awaitsRead = false }
    if completion.errorNumber != 0 { return unsafe lost(connection, .reset) }
    if completion.count == 0 {
      unsafe connection.pointee.flags.insert(.endOfStream)
    } else {
      unsafe connection.pointee.bytesIn += UInt64(completion.count)
      counters.bytesIn.add(completion.count)
      unsafe passOn(completion.bytes, from: connection, to: target)
    }
    unsafe markDirty(target)
  }

  /// All that was queued for a connection is out: what its pair receives goes to it directly now.
  func outputEmptiedPiped(_ target: UnsafeMutablePointer<Connection>) {
    let source = unsafe other(target)
    let side = unsafe pipes[target.pointee.pipe].side(of: source.pointee.key)
    if side.hasBegun || side.awaitsRead { return }
    unsafe pipes[target.pointee.pipe].update(side.key) { $0.hasBegun = true }
    if unsafe source.pointee.flags.contains(.endOfStream) { return unsafe sideEnded(source) }
    if case .failed = unsafe port.submit(.relay(to: target.pointee.key), on: side.key) { unsafe lost(source, .reset) }
  }

  // MARK: Ends

  /// The port's relay from a connection is over.
  func relayed(_ completion: Completion) {
    guard let source = unsafe table.find(completion.key), unsafe source.pointee.flags.contains(.piped) else { return }
    if completion.errorNumber == 0 {
      unsafe source.pointee.flags.insert(.endOfStream)
      return unsafe sideEnded(source)
    }
    if !completion.isOfTarget { return unsafe lost(source, .reset) }
    // The other one takes no more, but may have said why before it went: that is read first.
    unsafe pipes[source.pointee.pipe].update(completion.key) { $0.hasFailed = true }
    if unsafe pipes[source.pointee.pipe].other(than: completion.key).hasEnded { unsafe lost(source, .reset) }
  }

  /// A connection has ended its side, and the other one has all that it sent.
  private func sideEnded(_ source: UnsafeMutablePointer<Connection>) {
    let target = unsafe other(source)
    unsafe pipes[source.pointee.pipe].update(source.pointee.key) { $0.hasEnded = true }
    unsafe port.shutdownWrite(target.pointee.key)
    let back = unsafe pipes[source.pointee.pipe].side(of: target.pointee.key)
    if back.hasFailed {
      // What the source had to say has arrived; it does not hear the rest.
      _ = unsafe dissolve(source, .fails("reset"), keepsHeld: false)
      unsafe lost(source, .reset)
      unsafe close(target, .reset)
    } else if back.hasEnded {
      unsafe finishPipe(source, target)
    }
  }

  /// Both have ended, and both were told: nothing is left to do with them.
  private func finishPipe(_ first: UnsafeMutablePointer<Connection>, _ second: UnsafeMutablePointer<Connection>) {
    _ = unsafe dissolve(first, .ended, keepsHeld: false)
    unsafe leave(first, .peer)
    unsafe release(first)
    unsafe leave(second, .peer)
    unsafe release(second)
  }

  /// How a pipe ends, for the coroutine that waits.
  enum PipeEnd {
    case ended
    case fails(StaticString)
  }

  /// Makes two piped connections ordinary ones again and tells who waits for the end; returns the other one. Both are about to
  /// be closed. `keepsHeld` queues what was read of one and not taken by the other.
  @discardableResult
  func dissolve(
    _ connection: UnsafeMutablePointer<Connection>, _ end: PipeEnd, keepsHeld: Bool
  ) -> UnsafeMutablePointer<Connection> {
    let other = unsafe other(connection)
    // What was broadcast while they were piped is for neither.
    unsafe spreadBeforeChange(of: connection)
    unsafe spreadBeforeChange(of: other)
    let counts = unsafe (relayedBytes(connection), relayedBytes(other))
    let pipe = unsafe pipes.remove(connection.pointee.pipe)
    unsafe count(counts.0, from: connection, to: other)
    unsafe count(counts.1, from: other, to: connection)
    unsafe port.endRelays(
      of: connection.pointee.key,
      held: keepsHeld ? { [self] key, bytes in unsafe queueHeld(bytes, for: key) } : nil)
    unsafe unpipe(connection)
    unsafe unpipe(other)
    guard let ticket = pipe.ticket else { return unsafe other }
    let isFirst = unsafe pipe.first.key == connection.pointee.key
    let first = pipe.first.passedBytes + Int64(isFirst ? counts.0 : counts.1)
    let second = pipe.second.passedBytes + Int64(isFirst ? counts.1 : counts.0)
    switch end {
    case .ended: due.append(.answer(ticket, .integers(first, second)))
    case .fails(let reason): due.append(.answer(ticket, .failsAfter(reason, first, second)))
    }
    return unsafe other
  }

  private func unpipe(_ connection: UnsafeMutablePointer<Connection>) {
    unsafe connection.pointee.pipe = -1
    unsafe connection.pointee.flags.remove(.piped)
  }

  private func queueHeld(_ bytes: UnsafeRawBufferPointer, for key: HandleKey) {
    guard let target = unsafe table.find(key), let base = bytes.baseAddress, bytes.count > 0 else { return }
    unsafe target.pointee.output.reserve(bytes.count, pool: pool)
      .copyMemory(from: base, byteCount: bytes.count)
  }

  /// Bytes that the port has relayed from a connection.
  func relayedBytes(_ connection: UnsafeMutablePointer<Connection>) -> UInt64 {
    unsafe port.relayedBytes(from: connection.pointee.key)
  }

  /// Bytes that the port has relayed to a connection.
  func relayedBytes(to connection: UnsafeMutablePointer<Connection>) -> UInt64 {
    unsafe connection.pointee.flags.contains(.piped) ? relayedBytes(other(connection)) : 0
  }

  private func count(
    _ bytes: UInt64, from source: UnsafeMutablePointer<Connection>, to target: UnsafeMutablePointer<Connection>
  ) {
    unsafe source.pointee.bytesIn += bytes
    unsafe target.pointee.bytesOut += bytes
  }

  /// What a pipe returns behind nil when one of its connections ends for this reason.
  static func pipeReason(_ reason: CloseReason) -> StaticString {
    switch reason {
    case .timeout: "timeout"
    case .reset: "reset"
    default: "closed"
    }
  }

  // MARK: The coroutine

  /// The task that waits for a pipe was cancelled: its connections are closed.
  func cancelPipe(_ index: Int32, _ ticket: WaitTicket) {
    guard pipes[index].ticket == ticket, let connection = unsafe table.find(pipes[index].first.key) else { return }
    unsafe close(connection, .script("cancelled"))
  }

  /// Whether a task's wait is for the end of a pipe.
  func waitsForPipe(_ token: TaskToken) -> Bool {
    if case .answer(.pipe) = tasks[token].wait { return true }
    return false
  }

  /// Whether a task has failed only because a reload ended its wait for the end of a pipe. The pipe goes on, and closes its
  /// connections by itself: nobody has anything to do about it.
  func endsQuietly(_ task: RunningTask, _ message: String) -> Bool {
    guard task.token != .none, tasks[task.token].endsInPipe else { return false }
    return message.prefix { $0 != "\n" }.hasSuffix("reloaded")
  }

  // MARK: Counting

  /// What `status` shows of relaying, and what it takes of the descriptors.
  @inline(__always)
  func reportPiping() {
    if port.relayedBytes != countedRelayedBytes { countRelayed() }
    if !pipes.isEmpty || countedKernelPipes > 0 { settleKernelPipes() }
  }

  private func countRelayed() {
    let bytes = Int(port.relayedBytes - countedRelayedBytes)
    countedRelayedBytes = port.relayedBytes
    counters.bytesIn.add(bytes)
    counters.bytesOut.add(bytes)
  }

  /// Counts the kernel's pipes among the descriptors in use, and bounds them by what is to spare: none while nothing is piped.
  private func settleKernelPipes() {
    countKernelPipes()
    port.limitPipes(pipes.isEmpty ? 0 : server.pipesAllowed(having: countedKernelPipes))
    countKernelPipes()
  }

  private func countKernelPipes() {
    if port.openPipes == countedKernelPipes { return }
    server.pipesChanged(by: port.openPipes - countedKernelPipes)
    countedKernelPipes = port.openPipes
  }
}
