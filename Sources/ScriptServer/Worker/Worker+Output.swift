// From messages to bytes to sockets: framing into the send queue, the output limit and its policies, and one flush for each
// connection at the end of the turn, so that several messages leave in one call.

import Codecs
import CompletionIO
import Glibc
import Logging
import LuaRuntime

/// Whether a message was queued.
enum SendResult {
  case queued
  case closed
  case overflow
  /// It passes on what another connection receives.
  case piped
  /// The codec cannot frame it; counted as dropped.
  case unframable
}

extension Worker {
  // MARK: Queueing

  /// Room for `count` bytes of one message in the connection's queue, or why there is none.
  ///
  /// The caller fills the room at once and then calls `queued`. A message without a byte is queued as soon as it is
  /// admitted and gets no room: an empty piece in the queue would be one that no write ever passes.
  @inline(__always)
  func makeRoom(
    _ connection: UnsafeMutablePointer<Connection>, _ count: Int
  ) -> (SendResult, UnsafeMutableRawPointer?) {
    if count > 0, unsafe isUnwatched(connection, adding: count) {
      return unsafe (.queued, connection.pointee.output.reserve(count, pool: pool))
    }
    return unsafe makeRoomWithinLimit(connection, count)
  }

  /// Whether `count` bytes can be queued without a look at the output limit: nearly always.
  @inline(__always)
  func isUnwatched(_ connection: UnsafeMutablePointer<Connection>, adding count: Int) -> Bool {
    unsafe connection.pointee.phase == .open
      && connection.pointee.flags.isDisjoint(with: [.piped, .writing, .overSoft])
      && connection.pointee.output.count + count <= limit(of: connection).unwatchedBytes
      && (gathered.isEmpty || !isSpreadTo(connection))
  }

  private func makeRoomWithinLimit(
    _ connection: UnsafeMutablePointer<Connection>, _ count: Int
  ) -> (SendResult, UnsafeMutableRawPointer?) {
    let admitted = unsafe admit(connection, count)
    guard admitted == .queued, count > 0 else { return (admitted, nil) }
    let whole = unsafe limit(of: connection).policy == .dropOldest
    if whole { return unsafe (.queued, connection.pointee.output.reserveWhole(count, pool: pool)) }
    return unsafe (.queued, connection.pointee.output.reserve(count, pool: pool))
  }

  /// Applies the output limit to a message of `count` bytes.
  func admit(_ connection: UnsafeMutablePointer<Connection>, _ count: Int) -> SendResult {
    unsafe spreadBeforeChange(of: connection)
    guard unsafe connection.pointee.isUsable else { return .closed }
    if unsafe connection.pointee.flags.contains(.piped) { return .piped }
    let limit = unsafe listeners[Int(connection.pointee.listener)].limits.output
    if unsafe limit.takes(count, behind: connection.pointee.output) { return .queued }
    if unsafe tryFlushing(connection, for: count, limit) { return .queued }
    guard unsafe table.find(connection.pointee.key) != nil, unsafe connection.pointee.isUsable else { return .closed }
    counters.dropped.add(1)
    switch limit.policy {
    case .close:
      log.info("closing a client that does not read", metadata: ["id": unsafe "\(id(of: connection).rawValue)"])
      unsafe lost(connection, .overflow)
    case .dropNewest, .pause: break
    case .dropOldest:
      // What could not fit even an empty queue makes nobody else go.
      if count > limit.hardBytes { break }
      let wanted = unsafe connection.pointee.output.count + count - limit.hardBytes
      let tooMany = unsafe Int(connection.pointee.output.chunkCount) + 1 - Int(limit.messagesMax)
      let dropped = unsafe connection.pointee.output.dropOldest(
        until: wanted, messages: tooMany, keepFirst: connection.pointee.flags.contains(.writing), pool: pool)
      counters.dropped.add(max(dropped - 1, 0))
      if unsafe limit.takes(count, behind: connection.pointee.output) { return .queued }
    }
    return .overflow
  }

  /// Sends what the socket takes now; true when there is room for `count` bytes then.
  private func tryFlushing(_ connection: UnsafeMutablePointer<Connection>, for count: Int, _ limit: OutputLimit) -> Bool
  {
    if unsafe count > limit.hardBytes || connection.pointee.flags.contains(.writing) { return false }
    let key = unsafe connection.pointee.key
    unsafe flush(connection)
    return unsafe table.find(key) != nil && connection.pointee.isUsable
      && limit.takes(count, behind: connection.pointee.output)
  }

  /// What may wait for a connection, as its listener's options say.
  @inline(__always)
  func limit(of connection: UnsafeMutablePointer<Connection>) -> OutputLimit {
    unsafe listeners[Int(connection.pointee.listener)].limits.output
  }

  /// A message of `count` bytes now stands in the queue.
  @inline(__always)
  func queued(_ connection: UnsafeMutablePointer<Connection>, _ count: Int) {
    unsafe connection.pointee.messagesOut &+= 1
    counters.messagesOut.add(1)
    unsafe markDirty(connection)
    if unsafe connection.pointee.output.count > limit(of: connection).unwatchedBytes { unsafe queuedMuch(connection) }
  }

  /// The queue has become so long that its limits and the socket have to be looked at.
  private func queuedMuch(_ connection: UnsafeMutablePointer<Connection>) {
    if unsafe connection.pointee.output.count > OutputLimit.earlyFlushBytes,
      unsafe !connection.pointee.flags.contains(.writing)
    {
      let key = unsafe connection.pointee.key
      unsafe flush(connection)
      guard unsafe table.find(key) != nil else { return }
    }
    let limit = unsafe limit(of: connection)
    if unsafe connection.pointee.output.count > limit.softBytes, unsafe !connection.pointee.flags.contains(.overSoft) {
      unsafe connection.pointee.flags.insert(.overSoft)
      unsafe connection.pointee.softSince = now
      if limit.policy == .pause { unsafe connection.pointee.flags.insert(.outputPaused) }
      unsafe scheduleOpenDeadline(connection)
    }
  }

  @inline(__always)
  func markDirty(_ connection: UnsafeMutablePointer<Connection>) {
    if unsafe connection.pointee.flags.contains(.dirty) { return }
    unsafe connection.pointee.flags.insert(.dirty)
    unsafe dirty.append(connection.pointee.key)
  }

  // MARK: Sending

  /// Sends what the turn has queued. What there is no time for, where many get much, is the next turn's.
  func flushDirty(within share: TurnShare = .unlimited) {
    var share = share
    var next = 0
    // A flush may end a connection, whose on_close may send to others and broadcast: that comes behind and goes out, too. It ends,
    // since each time at least one connection does.
    repeat {
      postGathered()
      spread(sendsNow: true)
      if !due.isEmpty { settle() }
      while next < dirty.count, !share.isUsedUp {
        let key = dirty[next]
        next += 1
        guard let connection = unsafe table.find(key) else { continue }
        unsafe connection.pointee.flags.remove(.dirty)
        if unsafe !connection.pointee.flags.contains(.writing) { unsafe flush(connection) }
        if !due.isEmpty { settle() }
        share.spend()
      }
    } while !gathered.isEmpty || !gatheredForOthers.isEmpty || !sendsToOthers.isEmpty
    if next == dirty.count { dirty.removeAll(keepingCapacity: true) } else { dirty.removeFirst(next) }
  }

  /// Sends until nothing is left or the socket takes no more.
  func flush(_ connection: UnsafeMutablePointer<Connection>) {
    while unsafe !connection.pointee.output.isEmpty {
      let submission = unsafe withUnsafeTemporaryAllocation(of: iovec.self, capacity: SendQueue.gatherMax) { vectors in
        let count = unsafe connection.pointee.output.gather(into: vectors.baseAddress!)
        return unsafe port.submit(
          .write(UnsafeBufferPointer(start: vectors.baseAddress, count: count)), on: connection.pointee.key)
      }
      switch submission {
      case .completed(let sent): unsafe sentBytes(connection, sent)
      case .pending:
        unsafe connection.pointee.flags.insert(.writing)
        return
      case .failed: return unsafe lost(connection, .reset)
      }
    }
    unsafe outputEmptied(connection)
  }

  /// A write that had waited is done.
  func written(_ completion: Completion) {
    guard let connection = unsafe table.find(completion.key) else { return }
    unsafe connection.pointee.flags.remove(.writing)
    if completion.errorNumber != 0 { return unsafe lost(connection, .reset) }
    unsafe sentBytes(connection, completion.count)
    unsafe flush(connection)
  }

  private func sentBytes(_ connection: UnsafeMutablePointer<Connection>, _ sent: Int) {
    unsafe connection.pointee.output.advance(sent, pool: pool)
    unsafe connection.pointee.bytesOut += UInt64(sent)
    counters.bytesOut.add(sent)
    if unsafe connection.pointee.phase == .flushing { unsafe extendFlushing(connection) }
  }

  private func outputEmptied(_ connection: UnsafeMutablePointer<Connection>) {
    if unsafe connection.pointee.flags.contains(.overSoft) {
      if unsafe connection.pointee.flags.contains(.outputPaused) { unsafe markReady(connection) }
      unsafe connection.pointee.flags.subtract([.overSoft, .outputPaused])
      unsafe drained.append(connection.pointee.key)
      unsafe resumeReading(connection)
    }
    if unsafe connection.pointee.flags.contains(.piped) { return unsafe outputEmptiedPiped(connection) }
    if unsafe connection.pointee.phase != .open { unsafe conclude(connection) }
  }

  // MARK: Framed messages

  /// Frames `message` by the connection's codec and queues it.
  func send(_ connection: UnsafeMutablePointer<Connection>, _ message: UnsafeRawBufferPointer) -> SendResult {
    guard case .builtin(let codec) = unsafe codecs[connection.pointee.codec] else {
      return unsafe sendScripted(connection, message)
    }
    guard let count = try? codec.framedCount(message.count) else {
      counters.dropped.add(1)
      return .unframable
    }
    let (result, room) = unsafe makeRoom(connection, count)
    guard let room = unsafe room else { return result }
    unsafe codec.writeFrame(of: message, to: room)
    unsafe queued(connection, count)
    return .queued
  }

  /// Queues bytes as they are.
  func write(_ connection: UnsafeMutablePointer<Connection>, _ bytes: UnsafeRawBufferPointer) -> SendResult {
    let (result, room) = unsafe makeRoom(connection, bytes.count)
    guard let room = unsafe room else { return result }
    if let base = bytes.baseAddress { unsafe room.copyMemory(from: base, byteCount: bytes.count) }
    unsafe queued(connection, bytes.count)
    return .queued
  }

}
