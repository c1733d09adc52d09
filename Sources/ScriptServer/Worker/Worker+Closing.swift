// The end of a connection, in all its ways: asked for by the script, by the client, by a limit or by an error. Each connection
// that was opened gets its on_close exactly once; what is queued goes out first, unless there is nobody left to read it.

import Codecs
import CompletionIO
import LuaRuntime
import Synchronization

extension Worker {
  /// How long a closed connection may take to accept what is still queued for it, without any progress.
  private static let flushNanoseconds: UInt64 = 10_000_000_000
  /// How long it may take in all, so that nobody who reads a byte now and then keeps its output for ever: the default limit of
  /// output, 8 MiB, at a slow line's 70 kB/s.
  private static let flushNanosecondsMax: UInt64 = 120_000_000_000
  /// How long a client may go on sending after we ended our side: long enough for a round trip around the world and back,
  /// short enough that a client that never ends costs little.
  private static let lingerNanoseconds: UInt64 = 2_000_000_000

  /// The id that scripts and other workers know a connection by.
  func id(of connection: UnsafeMutablePointer<Connection>) -> ConnectionID {
    unsafe ConnectionID(worker: index, key: connection.pointee.key)
  }

  // MARK: Closing in order

  /// Ends a connection from our side: its handlers are told, what is queued goes out, then the client sees a clean end.
  func close(_ connection: UnsafeMutablePointer<Connection>, _ reason: CloseReason) {
    guard unsafe connection.pointee.isUsable else { return }
    unsafe spreadBeforeChange(of: connection)
    guard unsafe connection.pointee.isUsable else { return }
    let piped = unsafe endPipe(of: connection, reason, keepsHeld: true)
    unsafe leave(connection, reason)
    unsafe beginFlushing(connection)
    unsafe connection.pointee.decoder.reset()
    unsafe markDirty(connection)
    if let piped = unsafe piped { unsafe close(piped, reason) }
    // While its bytes are being cut, the cutting does the rest when it notices.
    if unsafe connection.pointee.flags.contains(.cutting) { return }
    unsafe connection.pointee.inbound.release()
    // A client that sends all before it reads would else wait for us, as we for it.
    unsafe resumeReading(connection)
  }

  /// The client has ended its side, and everything it sent was handed over.
  func inputEnded(_ connection: UnsafeMutablePointer<Connection>) {
    let key = unsafe connection.pointee.key
    if unsafe connection.pointee.receiver != .none {
      // The one who receives learns of the end first: it may still have something to say.
      _ = unsafe feedReceiver(connection)
      guard unsafe table.find(key) != nil, unsafe connection.pointee.phase == .open else { return }
    }
    unsafe spreadBeforeChange(of: connection)
    guard unsafe connection.pointee.phase == .open else { return }
    unsafe leave(connection, .peer)
    unsafe connection.pointee.phase = .ending
    unsafe conclude(connection)
  }

  /// Goes a step further towards the end once nothing is left to send.
  func conclude(_ connection: UnsafeMutablePointer<Connection>) {
    if unsafe connection.pointee.flags.contains(.piped) { return }
    guard unsafe connection.pointee.output.isEmpty, unsafe !connection.pointee.flags.contains(.writing) else {
      // Nobody is left who could add to it: it has as long as after any close.
      if unsafe connection.pointee.phase == .ending && connection.pointee.activeTasks == 0 {
        unsafe beginFlushing(connection)
      }
      return unsafe markDirty(connection)
    }
    switch unsafe connection.pointee.phase {
    case .ending:
      if unsafe connection.pointee.activeTasks == 0 { unsafe release(connection) }
    case .flushing:
      if unsafe connection.pointee.flags.contains(.endOfStream) { return unsafe release(connection) }
      unsafe connection.pointee.phase = .lingering
      unsafe port.shutdownWrite(connection.pointee.key)
      unsafe schedule(connection, at: now + Self.lingerNanoseconds)
      unsafe resumeReading(connection)
    case .open, .lingering, .free: break
    }
  }

  private func beginFlushing(_ connection: UnsafeMutablePointer<Connection>) {
    unsafe connection.pointee.phase = .flushing
    unsafe connection.pointee.flushUntil = now + Self.flushNanosecondsMax
    unsafe extendFlushing(connection)
  }

  /// Progress while flushing: the bound counts from here, within the bound of all of it.
  func extendFlushing(_ connection: UnsafeMutablePointer<Connection>) {
    unsafe schedule(connection, at: min(now + Self.flushNanoseconds, connection.pointee.flushUntil))
  }

  // MARK: Ending at once

  /// Ends a connection that can or shall not be written to any more: what is queued is dropped.
  func lost(_ connection: UnsafeMutablePointer<Connection>, _ reason: CloseReason) {
    if unsafe connection.pointee.phase == .free { return }
    let piped = unsafe endPipe(of: connection, reason, keepsHeld: false)
    unsafe leave(connection, reason)
    // The port lets go of the first chunk before its memory is given back.
    unsafe port.reset(connection.pointee.key)
    unsafe forget(connection)
    if let piped = unsafe piped { unsafe lost(piped, reason) }
  }

  /// Ends the pipe that a connection is in, whose other connection ends with it; nil when it is in none.
  private func endPipe(
    of connection: UnsafeMutablePointer<Connection>, _ reason: CloseReason, keepsHeld: Bool
  ) -> UnsafeMutablePointer<Connection>? {
    guard unsafe connection.pointee.flags.contains(.piped) else { return nil }
    return unsafe dissolve(connection, .fails(Self.pipeReason(reason)), keepsHeld: keepsHeld)
  }

  /// Ends a connection that both sides are done with.
  func release(_ connection: UnsafeMutablePointer<Connection>) {
    unsafe port.close(connection.pointee.key)
    unsafe forget(connection)
  }

  private func forget(_ connection: UnsafeMutablePointer<Connection>) {
    unsafe connection.pointee.output.clear(pool: pool)
    _ = unsafe deadlines.cancel(connection.pointee.deadline)
    unsafe codecs.release(connection.pointee.codec, lua: lua)
    if unsafe connection.pointee.flags.contains(.outgoing) {
      unsafe outgoing.release(connection.pointee.handlers, lua: lua)
      server.outgoingReleased()
      return unsafe table.remove(connection)
    }
    unsafe server.released(worker: index, listener: connection.pointee.listener, peerHash: connection.pointee.peerHash)
    if let counters = unsafe listeners[Int(connection.pointee.listener)].counters {
      unsafe counters._withUnsafeGuaranteedRef { _ = $0.open.subtract(1, ordering: .relaxed) }
    }
    unsafe table.remove(connection)
  }

  /// Takes an open connection out of everything that scripts can reach it by, and has its on_close called.
  func leave(_ connection: UnsafeMutablePointer<Connection>, _ reason: CloseReason) {
    unsafe wakeReceiver(connection, .closed)
    guard unsafe connection.pointee.phase == .open else { return }
    if unsafe !connection.pointee.flags.contains(.outgoing) { count(reason) }
    unsafe table.leaveOpen(connection)
    unsafe rooms.leaveAll(connection)
    let own = unsafe connection.pointee.handlers
    if own < 0 {
      counters.connections.subtract(1, ordering: .relaxed)
    } else {
      counters.outgoing.add(-1)
      outgoing.retain(own)
    }
    unsafe due.append(
      .closed(
        object: connection.pointee.object,
        handlers: ClosedHandlers(listener: connection.pointee.listener, own: own), reason: reason,
        connection: connection.pointee.key))
    unsafe connection.pointee.object = .none
  }

  /// Counts an end that a limit caused, by the option that set it.
  private func count(_ reason: CloseReason) {
    switch reason {
    case .overflow: server.refused("output_limit")
    case .tooLong: server.refused("max_length")
    case .messageRate: server.refused("message_rate")
    case .peer, .timeout, .reset, .error, .shutdown, .script: break
    }
  }

  /// Has the suspended `receive` of a connection return.
  func wakeReceiver(_ connection: UnsafeMutablePointer<Connection>, _ result: WakeResult) {
    guard unsafe connection.pointee.receiver != .none else { return }
    unsafe due.append(.wake(ticket(connection.pointee.receiver), result))
  }

  // MARK: Deadlines

  /// Sets the connection's one deadline.
  func schedule(_ connection: UnsafeMutablePointer<Connection>, at time: UInt64) {
    unsafe connection.pointee.deadlineAt = time
    if unsafe deadlines.reschedule(connection.pointee.deadline, at: time) { return }
    unsafe connection.pointee.deadline = unsafe deadlines.schedule(
      at: time, payload: DeadlinePurpose.connection(connection.pointee.key).payload)
  }

  /// Sets the deadline of an open connection to the earliest of what its listener's limits ask for, unless an earlier one
  /// is set: that one looks again.
  func scheduleOpenDeadline(_ connection: UnsafeMutablePointer<Connection>) {
    let next = unsafe nextOpenDeadline(connection)
    if unsafe next < connection.pointee.deadlineAt { unsafe schedule(connection, at: next) }
  }

  private func nextOpenDeadline(_ connection: UnsafeMutablePointer<Connection>) -> UInt64 {
    let limits = unsafe listeners[Int(connection.pointee.listener)].limits
    var next = UInt64.max
    let isHeld = unsafe connection.pointee.flags.contains(.rateHeld)
    if isHeld { next = unsafe holdEnd(connection) }
    if limits.idleNanoseconds > 0, !isHeld { next = unsafe lastActive(connection) &+ limits.idleNanoseconds }
    if limits.messageNanoseconds > 0, unsafe connection.pointee.messageBegunAt > 0 {
      next = unsafe min(next, connection.pointee.messageBegunAt &+ limits.messageNanoseconds)
    }
    if unsafe connection.pointee.flags.contains(.overSoft), limits.output.policy == .close {
      next = unsafe min(next, connection.pointee.softSince &+ UInt64(limits.output.softSeconds * 1e9))
    }
    return next
  }

  /// When a connection last had a complete message; a piped one, when a byte last moved in either direction.
  func lastActive(_ connection: UnsafeMutablePointer<Connection>) -> UInt64 {
    let last = unsafe connection.pointee.lastMessageAt
    return unsafe connection.pointee.flags.contains(.piped)
      ? max(last, port.lastRelayed(connection.pointee.key)) : last
  }

  func connectionDue(_ key: HandleKey) {
    guard let connection = unsafe table.find(key) else { return }
    unsafe connection.pointee.deadline = .none
    unsafe connection.pointee.deadlineAt = .max
    switch unsafe connection.pointee.phase {
    case .free: break
    case .flushing: unsafe lost(connection, .overflow)
    case .lingering: unsafe release(connection)
    case .open, .ending: unsafe openDeadlinePassed(connection)
    }
  }

  private func openDeadlinePassed(_ connection: UnsafeMutablePointer<Connection>) {
    if unsafe connection.pointee.flags.contains(.rateHeld), unsafe holdEnd(connection) <= now {
      unsafe release(held: connection)
    }
    let next = unsafe nextOpenDeadline(connection)
    if next > now { return unsafe next == .max ? () : schedule(connection, at: next) }
    let limits = unsafe listeners[Int(connection.pointee.listener)].limits
    let overSoft = unsafe connection.pointee.flags.contains(.overSoft) && limits.output.policy == .close
    if overSoft, unsafe connection.pointee.softSince &+ UInt64(limits.output.softSeconds * 1e9) <= now {
      unsafe lost(connection, .overflow)
    } else {
      let isIdle = unsafe limits.idleNanoseconds > 0 && lastActive(connection) &+ limits.idleNanoseconds <= now
      server.refused(isIdle ? "idle_timeout" : "message_timeout")
      unsafe close(connection, .timeout)
    }
  }
}
