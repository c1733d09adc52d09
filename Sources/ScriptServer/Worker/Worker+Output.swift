// From messages to bytes to sockets: framing into the send queue, the output limit and its policies, and one flush for each
// connection at the end of the turn, so that several messages leave in one call.

import Codecs
import CompletionIO
import Glibc
import LuaRuntime

/// Whether a message was queued.
enum SendResult {
  case queued
  case closed
  case overflow
}

extension Worker {
  /// Bytes queued in the midst of a turn after which sending begins at once: one usual socket buffer.
  private static let earlyFlushBytes = 262_144
  /// Messages from this size on are shared between the queues of a broadcast instead of copied.
  static let sharedBytesMin = 4096

  // MARK: Queueing

  /// Room for `count` bytes of one message in the connection's queue, or why there is none.
  ///
  /// The caller fills the room at once and then calls `queued`.
  func makeRoom(
    _ connection: UnsafeMutablePointer<Connection>, _ count: Int
  ) -> (SendResult, UnsafeMutableRawPointer?) {
    let admitted = admit(connection, count)
    guard admitted == .queued else { return (admitted, nil) }
    let whole = limit(of: connection).policy == .dropOldest
    return (.queued, connection.pointee.output.reserve(count, whole: whole, pool: pool))
  }

  /// Applies the output limit to a message of `count` bytes.
  private func admit(_ connection: UnsafeMutablePointer<Connection>, _ count: Int) -> SendResult {
    guard connection.pointee.isUsable else { return .closed }
    let limit = listeners[Int(connection.pointee.listener)].limits.output
    if connection.pointee.output.count + count <= limit.hardBytes { return .queued }
    if tryFlushing(connection, room: limit.hardBytes - count) { return .queued }
    guard table.find(connection.pointee.key) != nil, connection.pointee.isUsable else { return .closed }
    counters.dropped.add(1)
    switch limit.policy {
    case .close:
      log.info("closing a client that does not read", metadata: ["id": "\(id(of: connection).rawValue)"])
      lost(connection, .overflow)
    case .dropNewest, .pause: break
    case .dropOldest:
      let wanted = connection.pointee.output.count + count - limit.hardBytes
      let dropped = connection.pointee.output.dropOldest(
        until: wanted, keepFirst: connection.pointee.flags.contains(.writing), pool: pool)
      counters.dropped.add(max(dropped - 1, 0))
      if connection.pointee.output.count + count <= limit.hardBytes { return .queued }
    }
    return .overflow
  }

  /// Sends what the socket takes now; true when at most `room` bytes still wait.
  private func tryFlushing(_ connection: UnsafeMutablePointer<Connection>, room: Int) -> Bool {
    if room < 0 || connection.pointee.flags.contains(.writing) { return false }
    let key = connection.pointee.key
    flush(connection)
    return table.find(key) != nil && connection.pointee.isUsable && connection.pointee.output.count <= room
  }

  private func limit(of connection: UnsafeMutablePointer<Connection>) -> OutputLimit {
    listeners[Int(connection.pointee.listener)].limits.output
  }

  /// A message of `count` bytes now stands in the queue.
  func queued(_ connection: UnsafeMutablePointer<Connection>, _ count: Int) {
    connection.pointee.messagesOut &+= 1
    counters.messagesOut.add(1)
    let waiting = connection.pointee.output.count
    markDirty(connection)
    if waiting > Self.earlyFlushBytes, !connection.pointee.flags.contains(.writing) { return flush(connection) }
    let limit = limit(of: connection)
    if waiting > limit.softBytes, !connection.pointee.flags.contains(.overSoft) {
      connection.pointee.flags.insert(.overSoft)
      connection.pointee.softSince = now
      if limit.policy == .pause { connection.pointee.flags.insert(.outputPaused) }
      scheduleOpenDeadline(connection)
    }
  }

  func markDirty(_ connection: UnsafeMutablePointer<Connection>) {
    if connection.pointee.flags.contains(.dirty) { return }
    connection.pointee.flags.insert(.dirty)
    dirty.append(connection.pointee.key)
  }

  // MARK: Sending

  /// Sends what the turn has queued.
  func flushDirty() {
    // A flush may end a connection, whose on_close may send to others: those come behind and are flushed too.
    var next = 0
    while next < dirty.count {
      let key = dirty[next]
      next += 1
      guard let connection = table.find(key) else { continue }
      connection.pointee.flags.remove(.dirty)
      if !connection.pointee.flags.contains(.writing) { flush(connection) }
      if !due.isEmpty { settle() }
    }
    dirty.removeAll(keepingCapacity: true)
  }

  /// Sends until nothing is left or the socket takes no more.
  func flush(_ connection: UnsafeMutablePointer<Connection>) {
    while !connection.pointee.output.isEmpty {
      let submission = withUnsafeTemporaryAllocation(of: iovec.self, capacity: SendQueue.gatherMax) { vectors in
        let count = connection.pointee.output.gather(into: vectors.baseAddress!)
        return port.submit(
          .write(UnsafeBufferPointer(start: vectors.baseAddress, count: count)), on: connection.pointee.key)
      }
      switch submission {
      case .completed(let sent): sentBytes(connection, sent)
      case .pending:
        connection.pointee.flags.insert(.writing)
        return
      case .failed: return lost(connection, .reset)
      }
    }
    outputEmptied(connection)
  }

  /// A write that had waited is done.
  func written(_ completion: Completion) {
    guard let connection = table.find(completion.key) else { return }
    connection.pointee.flags.remove(.writing)
    if completion.errorNumber != 0 { return lost(connection, .reset) }
    sentBytes(connection, completion.count)
    flush(connection)
  }

  private func sentBytes(_ connection: UnsafeMutablePointer<Connection>, _ sent: Int) {
    connection.pointee.output.advance(sent, pool: pool)
    connection.pointee.bytesOut += UInt64(sent)
    counters.bytesOut.add(sent)
    if connection.pointee.phase == .flushing { extendFlushing(connection) }
  }

  private func outputEmptied(_ connection: UnsafeMutablePointer<Connection>) {
    if connection.pointee.flags.contains(.overSoft) {
      connection.pointee.flags.subtract([.overSoft, .outputPaused])
      due.append(.drained(connection.pointee.key))
      resumeReading(connection)
    }
    if connection.pointee.phase != .open { conclude(connection) }
  }

  // MARK: Framed messages

  /// Frames `message` by the connection's codec and queues it.
  func send(_ connection: UnsafeMutablePointer<Connection>, _ message: UnsafeRawBufferPointer) -> SendResult {
    guard case .builtin(let codec) = codecs[connection.pointee.codec] else {
      return sendScripted(connection, message)
    }
    guard let framing = try? codec.framing(payloadCount: message.count) else { return .overflow }
    let count = message.count + framing.overhead
    let (result, room) = makeRoom(connection, count)
    guard let room else { return result }
    framing.copyFrame(of: message, to: room)
    queued(connection, count)
    return .queued
  }

  /// Queues bytes as they are.
  func write(_ connection: UnsafeMutablePointer<Connection>, _ bytes: UnsafeRawBufferPointer) -> SendResult {
    let (result, room) = makeRoom(connection, bytes.count)
    guard let room else { return result }
    if let base = bytes.baseAddress { room.copyMemory(from: base, byteCount: bytes.count) }
    queued(connection, bytes.count)
    return .queued
  }

  /// Queues bytes that several queues share.
  private func write(_ connection: UnsafeMutablePointer<Connection>, shared: SharedBytes) {
    guard admit(connection, shared.bytes.count) == .queued else { return }
    connection.pointee.output.append(shared, pool: pool)
    queued(connection, shared.bytes.count)
  }

  // MARK: Broadcasts

  /// Queues `message` for every connection of this worker, or of one room of it.
  func broadcastHere(_ message: UnsafeRawBufferPointer, room: String?, except: ConnectionID?) {
    let slots = room.map { rooms.slots($0) } ?? table.open
    let exceptKey = except.map { $0.workerIndex == index ? $0.key : .none } ?? .none
    var framed = FramedBroadcast(message)
    for slot in slots {
      let connection = table.inSlot(slot)
      guard connection.pointee.phase == .open, connection.pointee.key != exceptKey else { continue }
      deliver(&framed, to: connection)
    }
  }

  private func deliver(_ broadcast: inout FramedBroadcast, to connection: UnsafeMutablePointer<Connection>) {
    guard case .builtin(let codec) = codecs[connection.pointee.codec] else {
      _ = sendScripted(connection, broadcast.message)
      return
    }
    guard broadcast.message.count >= Self.sharedBytesMin, let shared = broadcast.shared(codec, connection.pointee.codec)
    else {
      _ = send(connection, broadcast.message)
      return
    }
    write(connection, shared: shared)
  }
}

/// A message that is framed once for all connections with the same codec.
private struct FramedBroadcast {
  let message: UnsafeRawBufferPointer
  private var codec: UInt16?
  private var bytes: SharedBytes?

  init(_ message: UnsafeRawBufferPointer) { self.message = message }

  /// The framed message as shared bytes; nil when the codec cannot frame it.
  mutating func shared(_ codec: Codec, _ index: UInt16) -> SharedBytes? {
    if self.codec == index { return bytes }
    self.codec = index
    bytes = nil
    guard let framing = try? codec.framing(payloadCount: message.count) else { return nil }
    let count = message.count + framing.overhead
    let block = UnsafeMutableRawBufferPointer(start: malloc(max(count, 1)), count: count)
    framing.copyFrame(of: message, to: block.baseAddress!)
    bytes = SharedBytes(adopting: block)
    return bytes
  }
}
