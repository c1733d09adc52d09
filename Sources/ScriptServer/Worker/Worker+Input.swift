// From bytes to messages to handlers: what arrived is cut where it lies, in the port's read buffer, and only what completes
// no message yet is kept. While a handler of a connection is suspended, its later messages wait here.

import Codecs
import CompletionIO
import LuaRuntime

/// The bytes being cut: those just read, or those a connection had kept.
struct CuttingView {
  var key = HandleKey.none
  var bytes = UnsafeRawBufferPointer(start: nil, count: 0)
  var offset = 0
  var isInbound = false
  /// The same bytes from `textOffset` on as a Lua string, for a codec written in Lua.
  var text = LuaReference.none
  var textOffset = 0
}

extension Worker {
  /// Messages of one connection handled in one turn, so that a client that sends many does not keep the others waiting:
  /// about 0.1 ms of short handlers.
  private static let messagesPerTurnMax = 256
  /// Bytes kept for a connection whose handler is suspended before its socket is no longer read: one full read.
  static let backlogBytesMax = 65536
  /// The largest read of the port.
  static let readBytesMax = 65536

  // MARK: Arrivals

  func received(_ completion: Completion) {
    guard let connection = table.find(completion.key) else { return }
    connection.pointee.flags.remove(.reading)
    if completion.errorNumber != 0 { return lost(connection, .reset) }
    if completion.count == 0 { return ended(connection) }
    guard connection.pointee.phase == .open else { return dropArrived(connection) }
    connection.pointee.bytesIn += UInt64(completion.count)
    counters.bytesIn.add(completion.count)
    cut(connection, arrived: completion.bytes)
  }

  /// The client ended its side.
  private func ended(_ connection: UnsafeMutablePointer<Connection>) {
    connection.pointee.flags.insert(.endOfStream)
    switch connection.pointee.phase {
    case .open: cut(connection)
    case .lingering: release(connection)
    case .ending, .flushing, .free: break
    }
  }

  /// The connection broke while nothing was submitted on it.
  func hungUp(_ completion: Completion) {
    guard let connection = table.find(completion.key) else { return }
    if completion.errorNumber == 0, connection.pointee.phase == .open {
      // Both directions ended in order; what was sent before is still to be read.
      return resumeReading(connection)
    }
    lost(connection, .reset)
  }

  // MARK: Cutting

  /// Cuts messages off what the connection has kept and what just arrived, and hands them over one by one.
  func cut(
    _ connection: UnsafeMutablePointer<Connection>,
    arrived: UnsafeRawBufferPointer = UnsafeRawBufferPointer(start: nil, count: 0)
  ) {
    let key = connection.pointee.key
    if connection.pointee.flags.contains(.cutting) { return }
    let keepsSome = !connection.pointee.inbound.isEmpty
    if keepsSome, !keep(arrived, of: connection) { return }
    cutting = CuttingView(
      key: key, bytes: keepsSome ? connection.pointee.inbound.bytes : arrived, offset: 0, isInbound: keepsSome)
    connection.pointee.flags.insert(.cutting)
    var left = Self.messagesPerTurnMax
    while cutNext(connection, key, &left) {}
    let view = cutting
    cutting = CuttingView()
    lua.release(view.text)
    guard let connection = table.find(key) else { return }
    connection.pointee.flags.remove(.cutting)
    guard connection.pointee.phase == .open else { return connection.pointee.inbound.release() }
    guard keepRest(view, of: connection) else { return }
    afterCutting(connection)
  }

  /// One step of the cutting; false when there is nothing more to do now.
  private func cutNext(_ connection: UnsafeMutablePointer<Connection>, _ key: HandleKey, _ left: inout Int) -> Bool {
    guard connection.pointee.key == key, connection.pointee.phase == .open else { return false }
    if connection.pointee.receiver != .none { return feedReceiver(connection) }
    if connection.pointee.flags.contains(.busy) { return false }
    if left == 0 {
      markReady(connection)
      return false
    }
    left -= 1
    switch take(connection, .message) {
    case .bytes(let bytes): startMessage(connection, .bytes(bytes))
    case .value(let reference):
      startMessage(connection, .reference(reference))
      lua.release(reference)
    case .incomplete, .ended: return false
    case .failed(let reason):
      close(connection, reason)
      return false
    }
    if !due.isEmpty { settle() }
    return true
  }

  private func startMessage(_ connection: UnsafeMutablePointer<Connection>, _ message: LuaValue) {
    let handler = listeners[Int(connection.pointee.listener)].handlers.message
    guard handler.exists else { return }
    connection.pointee.flags.insert(.busy)
    let owner = TaskOwner(kind: .message, connection: connection.pointee.key, codeGeneration: generationNumber)
    start(handler, LuaArguments(.reference(connection.pointee.object), message), owner)
  }

  /// Gives a suspended `receive` what it asked for, if it has come; false when it has not.
  private func feedReceiver(_ connection: UnsafeMutablePointer<Connection>) -> Bool {
    let token = connection.pointee.receiver
    guard case .receive(_, let request) = tasks[token].wait else {
      preconditionFailure("a receiver that does not receive")
    }
    switch take(connection, request) {
    case .bytes(let bytes): resume(token, .bytes(bytes))
    case .value(let reference):
      resume(token, .reference(reference))
      lua.release(reference)
    case .incomplete: return false
    case .ended(let rest): resume(token, .nil, .text("closed"), .bytes(rest))
    case .failed(let reason): close(connection, reason)
    }
    if !due.isEmpty { settle() }
    return true
  }

  // MARK: Taking

  /// What came of taking a message or bytes off a connection.
  enum Taken {
    case bytes(UnsafeRawBufferPointer)
    /// A message that a codec in Lua made; the receiver owns the reference.
    case value(LuaReference)
    case incomplete
    /// The client has ended and these bytes are all that is left.
    case ended(UnsafeRawBufferPointer)
    case failed(CloseReason)
  }

  /// Takes what `request` asks for off the connection's bytes.
  func take(_ connection: UnsafeMutablePointer<Connection>, _ request: ReceiveRequest) -> Taken {
    let bytes = unconsumed(connection)
    let taken: Taken
    switch request {
    case .message: taken = takeMessage(connection, bytes)
    case .exactly(let count):
      if bytes.count < count { taken = .incomplete } else { return takeBytes(connection, 0..<count, count) }
    case .line: taken = takeLine(connection, bytes)
    case .all: taken = takeAll(connection, bytes)
    }
    guard case .incomplete = taken, connection.pointee.flags.contains(.endOfStream) else { return taken }
    return .ended(takeRest(connection, bytes.count))
  }

  private func takeMessage(_ connection: UnsafeMutablePointer<Connection>, _ bytes: UnsafeRawBufferPointer) -> Taken {
    switch codecs[connection.pointee.codec] {
    case .builtin(let codec):
      switch connection.pointee.decoder.next(codec, in: bytes) {
      case .message(let payload, let consumed):
        countMessage(connection)
        return .bytes(consume(connection, payload, consumed))
      case .incomplete: return .incomplete
      case .failed(let error): return .failed(frameFailed(connection, error))
      }
    case .scripted(let decode, _, let maxLength):
      return takeScripted(connection, bytes, decode: decode, maxLength: maxLength)
    case .unused: preconditionFailure("a connection uses a codec that was freed")
    }
  }

  private func frameFailed(_ connection: UnsafeMutablePointer<Connection>, _ error: FrameError) -> CloseReason {
    log.info("closing a connection", metadata: ["id": "\(id(of: connection).rawValue)", "why": "\(error)"])
    if case .tooLong = error { return .tooLong }
    return .error
  }

  private func takeLine(_ connection: UnsafeMutablePointer<Connection>, _ bytes: UnsafeRawBufferPointer) -> Taken {
    var decoder = FrameDecoder()
    switch decoder.next(.line(maxLength: Codec.lineMaxLengthDefault), in: bytes) {
    case .message(let payload, let consumed): return takeBytes(connection, payload, consumed)
    case .incomplete: return .incomplete
    case .failed(let error): return .failed(frameFailed(connection, error))
    }
  }

  private func takeAll(_ connection: UnsafeMutablePointer<Connection>, _ bytes: UnsafeRawBufferPointer) -> Taken {
    if connection.pointee.flags.contains(.endOfStream) {
      return bytes.isEmpty ? .incomplete : takeBytes(connection, 0..<bytes.count, bytes.count)
    }
    return bytes.count > Self.receiveAllBytesMax ? .failed(.tooLong) : .incomplete
  }

  private func takeBytes(
    _ connection: UnsafeMutablePointer<Connection>, _ payload: Range<Int>, _ consumed: Int
  ) -> Taken {
    connection.pointee.decoder.reset()
    countMessage(connection)
    return .bytes(consume(connection, payload, consumed))
  }

  private func takeRest(_ connection: UnsafeMutablePointer<Connection>, _ count: Int) -> UnsafeRawBufferPointer {
    connection.pointee.decoder.reset()
    return consume(connection, 0..<count, count)
  }

  func countMessage(_ connection: UnsafeMutablePointer<Connection>) {
    connection.pointee.messagesIn &+= 1
    connection.pointee.lastMessageAt = now
    connection.pointee.messageBegunAt = 0
    counters.messagesIn.add(1)
  }

  /// The bytes that no message was made of yet.
  func unconsumed(_ connection: UnsafeMutablePointer<Connection>) -> UnsafeRawBufferPointer {
    guard cutting.key == connection.pointee.key else { return connection.pointee.inbound.bytes }
    return UnsafeRawBufferPointer(rebasing: cutting.bytes[cutting.offset...])
  }

  /// Moves on by `consumed` bytes and returns the payload within them, valid while the handler is being started.
  func consume(
    _ connection: UnsafeMutablePointer<Connection>, _ payload: Range<Int>, _ consumed: Int
  ) -> UnsafeRawBufferPointer {
    let bytes = UnsafeRawBufferPointer(rebasing: unconsumed(connection)[payload])
    if cutting.key == connection.pointee.key {
      cutting.offset += consumed
      return bytes
    }
    let copy = scratch.copy(bytes)
    connection.pointee.inbound.consume(consumed)
    return copy
  }

  // MARK: Keeping

  /// Bytes a connection may keep: what its codec may leave, or what a suspended handler lets pile up, or what `receive`
  /// asked for, and one read.
  private func keptBytesMax(_ connection: UnsafeMutablePointer<Connection>) -> Int {
    let codecMax =
      switch codecs[connection.pointee.codec] {
      case .builtin(let codec): codec.unconsumedMax
      case .scripted(_, _, let maxLength): maxLength
      case .unused: 0
      }
    return max(codecMax, Self.backlogBytesMax, receiveBytesMax(connection)) + Self.readBytesMax
  }

  /// What the suspended `receive` of a connection may still need at once.
  private func receiveBytesMax(_ connection: UnsafeMutablePointer<Connection>) -> Int {
    guard connection.pointee.receiver != .none,
      case .receive(_, let request) = tasks[connection.pointee.receiver].wait
    else { return 0 }
    switch request {
    case .message: return 0
    case .exactly(let count): return count
    case .line: return Codec.lineMaxLengthDefault + 1
    case .all: return Self.receiveAllBytesMax
    }
  }

  /// The most that `receive("*a")` collects.
  static let receiveAllBytesMax = 64 << 20

  private func keep(_ bytes: UnsafeRawBufferPointer, of connection: UnsafeMutablePointer<Connection>) -> Bool {
    if connection.pointee.inbound.append(bytes, limit: keptBytesMax(connection)) { return true }
    log.error("out of memory for a connection's input", metadata: ["id": "\(id(of: connection).rawValue)"])
    lost(connection, .error)
    return false
  }

  private func keepRest(_ view: CuttingView, of connection: UnsafeMutablePointer<Connection>) -> Bool {
    if view.isInbound {
      connection.pointee.inbound.consume(view.offset)
      return true
    }
    return view.offset == view.bytes.count
      || keep(UnsafeRawBufferPointer(rebasing: view.bytes[view.offset...]), of: connection)
  }

  /// What follows once no more messages can be handed over: deadlines, the stream's end, and the next read.
  private func afterCutting(_ connection: UnsafeMutablePointer<Connection>) {
    if connection.pointee.inbound.isEmpty {
      connection.pointee.messageBegunAt = 0
    } else if connection.pointee.messageBegunAt == 0, !connection.pointee.flags.contains(.busy) {
      connection.pointee.messageBegunAt = now
      scheduleOpenDeadline(connection)
    }
    if connection.pointee.flags.contains(.endOfStream), isExhausted(connection) { return inputEnded(connection) }
    resumeReading(connection)
  }

  /// Whether what the ended stream left can make no further message.
  private func isExhausted(_ connection: UnsafeMutablePointer<Connection>) -> Bool {
    if connection.pointee.flags.contains(.ready) { return false }
    if connection.pointee.inbound.isEmpty || !connection.pointee.flags.contains(.busy) { return true }
    guard case .builtin(let codec) = codecs[connection.pointee.codec] else { return false }
    var decoder = connection.pointee.decoder
    return decoder.next(codec, in: connection.pointee.inbound.bytes) == .incomplete
  }

  /// Submits a read unless something speaks against it.
  func resumeReading(_ connection: UnsafeMutablePointer<Connection>) {
    let flags = connection.pointee.flags
    if !flags.isDisjoint(with: [.reading, .endOfStream]) { return }
    if connection.pointee.phase == .open {
      if !flags.isDisjoint(with: [.scriptPaused, .outputPaused, .ready]) { return }
      let receives = connection.pointee.receiver != .none
      if flags.contains(.busy), !receives, connection.pointee.inbound.count >= Self.backlogBytesMax { return }
    }
    connection.pointee.flags.insert(.reading)
    if case .failed = port.submit(.read, on: connection.pointee.key) { lost(connection, .reset) }
  }

  /// Has the connection's kept messages handled in the next turn.
  func markReady(_ connection: UnsafeMutablePointer<Connection>) {
    if connection.pointee.flags.contains(.ready) { return }
    connection.pointee.flags.insert(.ready)
    ready.append(connection.pointee.key)
  }

  /// What a connection sends after we closed it is read and dropped, so that our last reply arrives and no reset.
  private func dropArrived(_ connection: UnsafeMutablePointer<Connection>) { resumeReading(connection) }
}
