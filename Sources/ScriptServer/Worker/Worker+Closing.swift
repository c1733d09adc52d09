// The end of a connection, in all its ways: asked for by the script, by the client, by a limit or by an error. Each connection
// that was opened gets its on_close exactly once; what is queued goes out first, unless there is nobody left to read it.

import CompletionIO
import LuaRuntime

extension Worker {
  /// How long a closed connection may take to accept what is still queued for it, without any progress.
  private static let flushNanoseconds: UInt64 = 10_000_000_000
  /// How long a client may go on sending after we ended our side: long enough for a round trip around the world and back,
  /// short enough that a client that never ends costs little.
  private static let lingerNanoseconds: UInt64 = 2_000_000_000

  /// The id that scripts and other workers know a connection by.
  func id(of connection: UnsafeMutablePointer<Connection>) -> ConnectionID {
    ConnectionID(worker: index, key: connection.pointee.key)
  }

  // MARK: Closing in order

  /// Ends a connection from our side: its handlers are told, what is queued goes out, then the client sees a clean end.
  func close(_ connection: UnsafeMutablePointer<Connection>, _ reason: CloseReason) {
    guard connection.pointee.isUsable else { return }
    leave(connection, reason)
    connection.pointee.phase = .flushing
    if !connection.pointee.flags.contains(.cutting) { connection.pointee.inbound.release() }
    connection.pointee.decoder.reset()
    schedule(connection, at: now + Self.flushNanoseconds)
    markDirty(connection)
  }

  /// The client has ended its side, and everything it sent was handed over.
  func inputEnded(_ connection: UnsafeMutablePointer<Connection>) {
    let key = connection.pointee.key
    if connection.pointee.receiver != .none {
      // The one who receives learns of the end first: it may still have something to say.
      _ = feedLast(connection)
      guard table.find(key) != nil, connection.pointee.phase == .open else { return }
    }
    leave(connection, .peer)
    connection.pointee.phase = .ending
    conclude(connection)
  }

  private func feedLast(_ connection: UnsafeMutablePointer<Connection>) -> Bool {
    let token = connection.pointee.receiver
    guard case .receive(_, let request) = tasks[token].wait else { return false }
    connection.pointee.flags.insert(.cutting)
    defer { if connection.pointee.phase != .free { connection.pointee.flags.remove(.cutting) } }
    if case .bytes(let bytes) = take(connection, request) {
      resume(token, .bytes(bytes))
    } else {
      resume(token, .nil, .text("closed"), .bytes(UnsafeRawBufferPointer(start: nil, count: 0)))
    }
    return true
  }

  /// Goes a step further towards the end once nothing is left to send.
  func conclude(_ connection: UnsafeMutablePointer<Connection>) {
    guard connection.pointee.output.isEmpty, !connection.pointee.flags.contains(.writing) else {
      return markDirty(connection)
    }
    switch connection.pointee.phase {
    case .ending:
      if connection.pointee.activeTasks == 0 { release(connection) }
    case .flushing:
      if connection.pointee.flags.contains(.endOfStream) { return release(connection) }
      connection.pointee.phase = .lingering
      port.shutdownWrite(connection.pointee.key)
      schedule(connection, at: now + Self.lingerNanoseconds)
      resumeReading(connection)
    case .open, .lingering, .free: break
    }
  }

  /// Progress while flushing: the bound counts from here.
  func extendFlushing(_ connection: UnsafeMutablePointer<Connection>) {
    schedule(connection, at: now + Self.flushNanoseconds)
  }

  // MARK: Ending at once

  /// Ends a connection that can or shall not be written to any more: what is queued is dropped.
  func lost(_ connection: UnsafeMutablePointer<Connection>, _ reason: CloseReason) {
    if connection.pointee.phase == .free { return }
    leave(connection, reason)
    // The port lets go of the first chunk before its memory is given back.
    port.reset(connection.pointee.key)
    forget(connection)
  }

  /// Ends a connection that both sides are done with.
  private func release(_ connection: UnsafeMutablePointer<Connection>) {
    port.close(connection.pointee.key)
    forget(connection)
  }

  private func forget(_ connection: UnsafeMutablePointer<Connection>) {
    connection.pointee.output.clear(pool: pool)
    _ = deadlines.cancel(connection.pointee.deadline)
    codecs.release(connection.pointee.codec, lua: lua)
    server.released(worker: index, listener: connection.pointee.listener, peerHash: connection.pointee.peerHash)
    if let counters = listeners[Int(connection.pointee.listener)].counters {
      counters.open.subtract(1, ordering: .relaxed)
    }
    table.remove(connection)
  }

  /// Takes an open connection out of everything that scripts can reach it by, and has its on_close called.
  private func leave(_ connection: UnsafeMutablePointer<Connection>, _ reason: CloseReason) {
    wakeReceiver(connection, .closed)
    guard connection.pointee.phase == .open else { return }
    table.leaveOpen(connection)
    rooms.leaveAll(connection)
    counters.connections.subtract(1, ordering: .relaxed)
    due.append(
      .closed(
        object: connection.pointee.object, listener: connection.pointee.listener, reason: reason,
        connection: connection.pointee.key))
    connection.pointee.object = .none
  }

  /// Has the suspended `receive` of a connection return.
  func wakeReceiver(_ connection: UnsafeMutablePointer<Connection>, _ result: WakeResult) {
    guard connection.pointee.receiver != .none else { return }
    due.append(.wake(connection.pointee.receiver, result))
  }

  // MARK: Deadlines

  /// Sets the connection's one deadline.
  func schedule(_ connection: UnsafeMutablePointer<Connection>, at time: UInt64) {
    connection.pointee.deadlineAt = time
    if deadlines.reschedule(connection.pointee.deadline, at: time) { return }
    connection.pointee.deadline = deadlines.schedule(
      at: time, payload: DeadlinePurpose.connection(connection.pointee.key).payload)
  }

  /// Sets the deadline of an open connection to the earliest of what its listener's limits ask for, unless an earlier one
  /// is set: that one looks again.
  func scheduleOpenDeadline(_ connection: UnsafeMutablePointer<Connection>) {
    let next = nextOpenDeadline(connection)
    if next < connection.pointee.deadlineAt { schedule(connection, at: next) }
  }

  private func nextOpenDeadline(_ connection: UnsafeMutablePointer<Connection>) -> UInt64 {
    let limits = listeners[Int(connection.pointee.listener)].limits
    var next = UInt64.max
    if limits.idleNanoseconds > 0 { next = connection.pointee.lastMessageAt &+ limits.idleNanoseconds }
    if limits.messageNanoseconds > 0, connection.pointee.messageBegunAt > 0 {
      next = min(next, connection.pointee.messageBegunAt &+ limits.messageNanoseconds)
    }
    if connection.pointee.flags.contains(.overSoft), limits.output.policy == .close {
      next = min(next, connection.pointee.softSince &+ UInt64(limits.output.softSeconds * 1e9))
    }
    return next
  }

  func connectionDue(_ key: HandleKey) {
    guard let connection = table.find(key) else { return }
    connection.pointee.deadline = .none
    connection.pointee.deadlineAt = .max
    switch connection.pointee.phase {
    case .free: break
    case .flushing: lost(connection, .overflow)
    case .lingering: release(connection)
    case .open, .ending: openDeadlinePassed(connection)
    }
  }

  private func openDeadlinePassed(_ connection: UnsafeMutablePointer<Connection>) {
    let next = nextOpenDeadline(connection)
    if next > now { return next == .max ? () : schedule(connection, at: next) }
    let limits = listeners[Int(connection.pointee.listener)].limits.output
    let overSoft = connection.pointee.flags.contains(.overSoft) && limits.policy == .close
    if overSoft, connection.pointee.softSince &+ UInt64(limits.softSeconds * 1e9) <= now {
      lost(connection, .overflow)
    } else {
      close(connection, .timeout)
    }
  }
}
