// From bytes to messages to handlers: what arrived is cut where it lies, in the port's read buffer, and only what completes
// no message yet is kept. While a handler of a connection is suspended, its later messages wait here.

import Codecs
import CompletionIO
import Logging
import LuaRuntime

/// The bytes being cut: those just read, or those a connection had kept.
@safe
struct CuttingView {
  var key = HandleKey.none
  /// Where the connection lies; another one once the key is not `key` any more.
  var connection: UnsafeMutablePointer<Connection>?
  var bytes = unsafe UnsafeRawBufferPointer(start: nil, count: 0)
  var offset = 0
  var isInbound = false
  /// The same bytes from `textOffset` on as a Lua string, for a codec written in Lua.
  var text = LuaReference.none
  var textOffset = 0
  /// Messages that may still be handed over in this turn.
  var left = 0
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
    guard let connection = unsafe table.find(completion.key) else { return }
    unsafe connection.pointee.flags.remove(.reading)
    if unsafe connection.pointee.flags.contains(.piped) { return unsafe receivedPiped(connection, completion) }
    if completion.errorNumber != 0 { return unsafe lost(connection, .reset) }
    if completion.count == 0 { return unsafe ended(connection) }
    guard unsafe connection.pointee.phase == .open else { return unsafe dropArrived(connection) }
    unsafe connection.pointee.bytesIn += UInt64(completion.count)
    counters.bytesIn.add(completion.count)
    unsafe cut(connection, arrived: completion.bytes)
  }

  /// The client ended its side.
  private func ended(_ connection: UnsafeMutablePointer<Connection>) {
    unsafe connection.pointee.flags.insert(.endOfStream)
    switch unsafe connection.pointee.phase {
    case .open: unsafe cut(connection)
    case .lingering: unsafe release(connection)
    case .ending, .flushing, .free: break
    }
  }

  /// The connection broke while nothing was submitted on it.
  func hungUp(_ completion: Completion) {
    guard let connection = unsafe table.find(completion.key) else { return }
    if completion.errorNumber == 0, unsafe connection.pointee.phase == .open {
      // Both directions ended in order; what was sent before is still to be read.
      return unsafe resumeReading(connection)
    }
    unsafe lost(connection, .reset)
  }

  // MARK: Cutting

  /// Cuts messages off what the connection has kept and what just arrived, and hands them over one by one.
  func cut(
    _ connection: UnsafeMutablePointer<Connection>,
    arrived: UnsafeRawBufferPointer = unsafe UnsafeRawBufferPointer(start: nil, count: 0)
  ) {
    let key = unsafe connection.pointee.key
    if unsafe !connection.pointee.flags.isDisjoint(with: [.cutting, .piped]) { return }
    let keepsSome = unsafe !connection.pointee.inbound.isEmpty
    if keepsSome, unsafe !keep(arrived, of: connection) { return }
    cutting = unsafe CuttingView(
      key: key, connection: connection, bytes: keepsSome ? connection.pointee.inbound.bytes : arrived, offset: 0,
      isInbound: keepsSome)
    unsafe connection.pointee.flags.insert(.cutting)
    var left = unsafe messagesLeft(connection, most: Self.messagesPerTurnMax)
    while unsafe cutNext(connection, key, &left) {}
    let view = cutting
    cutting = CuttingView()
    lua.release(view.text)
    guard let connection = unsafe table.find(key) else { return }
    unsafe connection.pointee.flags.remove(.cutting)
    guard unsafe connection.pointee.phase == .open else {
      unsafe connection.pointee.inbound.release()
      return unsafe resumeReading(connection)
    }
    guard unsafe keepRest(view, of: connection) else { return }
    unsafe afterCutting(connection)
  }

  /// One step of the cutting; false when there is nothing more to do now.
  private func cutNext(_ connection: UnsafeMutablePointer<Connection>, _ key: HandleKey, _ left: inout Int) -> Bool {
    guard unsafe connection.pointee.key == key, unsafe connection.pointee.phase == .open else { return false }
    if unsafe connection.pointee.flags.contains(.piped) { return false }
    if unsafe connection.pointee.receiver != .none, unsafe connection.pointee.flags.isDisjoint(with: .starved) {
      left = unsafe messagesLeft(connection, most: left)
      if left <= 0 { return unsafe outOfMessages(connection) }
      return unsafe feedReceiver(connection)
    }
    if unsafe !connection.pointee.flags.isDisjoint(with: .holdsMessages) { return false }
    if left <= 0 { return unsafe outOfMessages(connection) }
    left -= 1
    switch unsafe take(connection, .message) {
    case .bytes(let bytes): unsafe startMessages(connection, bytes, &left)
    case .value(let reference):
      unsafe startMessage(connection, .reference(reference))
      lua.release(reference)
    case .incomplete, .ended: return false
    case .failed(let reason):
      unsafe close(connection, reason)
      return false
    }
    if !due.isEmpty { settle() }
    return true
  }

  private func startMessage(
    _ connection: UnsafeMutablePointer<Connection>, _ message: LuaValue, next: NextBody? = nil
  ) {
    let handler = unsafe handlers(of: connection).message
    guard handler.exists else { return }
    unsafe connection.pointee.flags.insert(.busy)
    let owner = unsafe TaskOwner(
      kind: .message, connection: connection.pointee.key, codeGeneration: codeGeneration(of: connection))
    unsafe start(handler, LuaArguments(.reference(connection.pointee.object), message), owner, next: next)
  }

  /// Hands a message over, and those behind it on the same coroutine as long as its handler returns without waiting.
  private func startMessages(
    _ connection: UnsafeMutablePointer<Connection>, _ bytes: UnsafeRawBufferPointer, _ left: inout Int
  ) {
    cutting.left = left
    unsafe startMessage(connection, .bytes(bytes)) { context in unsafe Worker.lend(context) { unsafe $0.nextMessage() }
    }
    left = cutting.left
  }

  /// The next message of the connection whose handler has just returned, if it may be handed over at once: nothing else that
  /// the handler decided comes first.
  private func nextMessage() -> LuaBytes {
    let rest = unsafe cutting.bytes.count - cutting.offset
    guard rest > 0, cutting.left > 0, due.isEmpty, running?.token == TaskToken.none,
      let connection = unsafe cutting.connection, unsafe connection.pointee.key == cutting.key,
      unsafe connection.pointee.phase == .open, unsafe connection.pointee.flags.isDisjoint(with: .paused),
      unsafe connection.pointee.receiver == .none, let start = unsafe cutting.bytes.baseAddress,
      case .builtin(let codec) = unsafe codecs[connection.pointee.codec]
    else { return unsafe .none }
    let bytes = unsafe UnsafeRawBufferPointer(start: start + cutting.offset, count: rest)
    guard case .message(let payload, let consumed) = unsafe connection.pointee.decoder.next(codec, in: bytes) else {
      return unsafe .none
    }
    cutting.left -= 1
    cutting.offset += consumed
    unsafe countMessage(connection)
    return unsafe LuaBytes(start + (cutting.offset - consumed + payload.lowerBound), count: payload.count)
  }

  /// Gives a suspended `receive` what it asked for, if it has come; false when it has not.
  func feedReceiver(_ connection: UnsafeMutablePointer<Connection>) -> Bool {
    let token = unsafe connection.pointee.receiver
    guard case .receive(_, let request) = tasks[token].wait else {
      preconditionFailure("a receiver that does not receive")
    }
    switch unsafe take(connection, request) {
    case .bytes(let bytes): unsafe resume(token, .bytes(bytes))
    case .value(let reference):
      unsafe resume(token, .reference(reference))
      lua.release(reference)
    case .incomplete: return false
    case .ended(let rest): unsafe resume(token, .nil, .text("closed"), .bytes(rest))
    case .failed(let reason): unsafe close(connection, reason)
    }
    if !due.isEmpty { settle() }
    return true
  }

  // MARK: Taking

  /// What came of taking a message or bytes off a connection.
  @safe
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
    let bytes = unsafe unconsumed(connection)
    let taken: Taken
    switch request {
    case .message: taken = unsafe takeMessage(connection, bytes)
    case .exactly(let count):
      if bytes.count < count { taken = .incomplete } else { return unsafe takeBytes(connection, 0..<count, count) }
    case .line: taken = unsafe takeLine(connection, bytes)
    case .all: taken = unsafe takeAll(connection, bytes)
    }
    // A codec in Lua may have closed the connection, or taken bytes of it, while it was asked for a message.
    guard case .incomplete = taken, unsafe connection.pointee.flags.contains(.endOfStream),
      unsafe connection.pointee.phase == .open
    else { return taken }
    return unsafe .ended(takeRest(connection))
  }

  private func takeMessage(_ connection: UnsafeMutablePointer<Connection>, _ bytes: UnsafeRawBufferPointer) -> Taken {
    switch unsafe codecs[connection.pointee.codec] {
    case .builtin(let codec):
      switch unsafe connection.pointee.decoder.next(codec, in: bytes) {
      case .message(let payload, let consumed):
        unsafe countMessage(connection)
        return unsafe .bytes(consume(connection, payload, consumed))
      case .incomplete: return .incomplete
      case .failed(let error): return unsafe .failed(frameFailed(connection, error))
      }
    case .scripted(let decode, _, let maxLength):
      return unsafe takeScripted(connection, bytes, decode: decode, maxLength: maxLength)
    case .unused: preconditionFailure("a connection uses a codec that was freed")
    }
  }

  private func frameFailed(_ connection: UnsafeMutablePointer<Connection>, _ error: FrameError) -> CloseReason {
    log.info(
      "closing a connection",
      metadata: [
        "id": unsafe "\(id(of: connection).rawValue)", "peer": unsafe "\(peerName(connection))", "why": "\(error)",
      ])
    if case .tooLong = error { return .tooLong }
    return .error
  }

  private func takeLine(_ connection: UnsafeMutablePointer<Connection>, _ bytes: UnsafeRawBufferPointer) -> Taken {
    var decoder = FrameDecoder()
    switch unsafe decoder.next(.line(maxLength: Codec.lineMaxLengthDefault), in: bytes) {
    case .message(let payload, let consumed): return unsafe takeBytes(connection, payload, consumed)
    case .incomplete: return .incomplete
    case .failed(let error): return unsafe .failed(frameFailed(connection, error))
    }
  }

  private func takeAll(_ connection: UnsafeMutablePointer<Connection>, _ bytes: UnsafeRawBufferPointer) -> Taken {
    if unsafe connection.pointee.flags.contains(.endOfStream) {
      return unsafe bytes.isEmpty ? .incomplete : takeBytes(connection, 0..<bytes.count, bytes.count)
    }
    return bytes.count > Self.receiveAllBytesMax ? .failed(.tooLong) : .incomplete
  }

  private func takeBytes(
    _ connection: UnsafeMutablePointer<Connection>, _ payload: Range<Int>, _ consumed: Int
  ) -> Taken {
    unsafe connection.pointee.decoder.reset()
    unsafe countMessage(connection)
    return unsafe .bytes(consume(connection, payload, consumed))
  }

  private func takeRest(_ connection: UnsafeMutablePointer<Connection>) -> UnsafeRawBufferPointer {
    unsafe connection.pointee.decoder.reset()
    let count = unsafe unconsumed(connection).count
    return unsafe consume(connection, 0..<count, count)
  }

  func countMessage(_ connection: UnsafeMutablePointer<Connection>) {
    unsafe connection.pointee.messagesIn &+= 1
    unsafe connection.pointee.lastMessageAt = now
    unsafe connection.pointee.messageBegunAt = 0
    counters.messagesIn.add(1)
  }

  /// The bytes that no message was made of yet.
  func unconsumed(_ connection: UnsafeMutablePointer<Connection>) -> UnsafeRawBufferPointer {
    guard unsafe cutting.key == connection.pointee.key else { return unsafe connection.pointee.inbound.bytes }
    return unsafe UnsafeRawBufferPointer(rebasing: cutting.bytes[cutting.offset...])
  }

  /// Moves on by `consumed` bytes and returns the payload within them, valid while the handler is being started.
  func consume(
    _ connection: UnsafeMutablePointer<Connection>, _ payload: Range<Int>, _ consumed: Int
  ) -> UnsafeRawBufferPointer {
    let bytes = unsafe UnsafeRawBufferPointer(rebasing: unconsumed(connection)[payload])
    if unsafe cutting.key == connection.pointee.key {
      cutting.offset += consumed
      return unsafe bytes
    }
    let copy = unsafe scratch.copy(bytes)
    unsafe connection.pointee.inbound.consume(consumed)
    return unsafe copy
  }

  // MARK: Keeping

  /// Bytes a connection may keep: what its codec may leave, or what a suspended handler lets pile up, or what `receive`
  /// asked for, and one read.
  private func keptBytesMax(_ connection: UnsafeMutablePointer<Connection>) -> Int {
    let codecMax =
      switch unsafe codecs[connection.pointee.codec] {
      case .builtin(let codec): codec.unconsumedMax
      case .scripted(_, _, let maxLength): maxLength
      case .unused: 0
      }
    return unsafe max(codecMax, Self.backlogBytesMax, receiveBytesMax(connection)) + Self.readBytesMax
  }

  /// What the suspended `receive` of a connection may still need at once.
  private func receiveBytesMax(_ connection: UnsafeMutablePointer<Connection>) -> Int {
    guard unsafe connection.pointee.receiver != .none,
      case .receive(_, let request) = unsafe tasks[connection.pointee.receiver].wait
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
    if unsafe connection.pointee.inbound.append(bytes, limit: keptBytesMax(connection)) { return true }
    log.error("out of memory for a connection's input", metadata: ["id": unsafe "\(id(of: connection).rawValue)"])
    unsafe lost(connection, .error)
    return false
  }

  private func keepRest(_ view: CuttingView, of connection: UnsafeMutablePointer<Connection>) -> Bool {
    if view.isInbound {
      unsafe connection.pointee.inbound.consume(view.offset)
      return true
    }
    return unsafe view.offset == view.bytes.count
      || keep(UnsafeRawBufferPointer(rebasing: view.bytes[view.offset...]), of: connection)
  }

  /// What follows once no more messages can be handed over: deadlines, the stream's end, and the next read.
  private func afterCutting(_ connection: UnsafeMutablePointer<Connection>) {
    if unsafe connection.pointee.flags.contains(.piped) { return }
    if unsafe connection.pointee.inbound.isEmpty {
      unsafe connection.pointee.messageBegunAt = 0
    } else if unsafe connection.pointee.messageBegunAt == 0,
      unsafe connection.pointee.flags.isDisjoint(with: .holdsMessages)
    {
      unsafe connection.pointee.messageBegunAt = now
      unsafe scheduleOpenDeadline(connection)
    }
    if unsafe connection.pointee.flags.contains(.endOfStream), unsafe isExhausted(connection) {
      return unsafe inputEnded(connection)
    }
    unsafe resumeReading(connection)
  }

  /// Whether what the ended stream left can make no further message.
  private func isExhausted(_ connection: UnsafeMutablePointer<Connection>) -> Bool {
    if unsafe connection.pointee.flags.contains(.ready) { return false }
    if unsafe connection.pointee.inbound.isEmpty { return true }
    if unsafe connection.pointee.flags.isDisjoint(with: .holdsMessages) { return true }
    if unsafe connection.pointee.flags.contains(.unheard) { return false }
    guard case .builtin(let codec) = unsafe codecs[connection.pointee.codec] else { return false }
    var decoder = unsafe connection.pointee.decoder
    return unsafe decoder.next(codec, in: connection.pointee.inbound.bytes) == .incomplete
  }

  /// Submits a read unless something speaks against it.
  func resumeReading(_ connection: UnsafeMutablePointer<Connection>) {
    let flags = unsafe connection.pointee.flags
    if !flags.isDisjoint(with: [.reading, .endOfStream, .piped]) { return }
    if unsafe connection.pointee.phase == .open {
      if !flags.isDisjoint(with: [.scriptPaused, .outputPaused, .rateHeld, .ready]) { return }
      let receives = unsafe connection.pointee.receiver != .none
      if !flags.isDisjoint(with: [.busy, .unheard]), !receives,
        unsafe connection.pointee.inbound.count >= Self.backlogBytesMax
      {
        return
      }
    }
    unsafe connection.pointee.flags.insert(.reading)
    if case .failed = unsafe port.submit(.read, on: connection.pointee.key) { unsafe lost(connection, .reset) }
  }

  /// Has the connection's kept messages handled in the next turn.
  func markReady(_ connection: UnsafeMutablePointer<Connection>) {
    if unsafe connection.pointee.flags.contains(.ready) { return }
    unsafe connection.pointee.flags.insert(.ready)
    unsafe ready.append(connection.pointee.key)
  }

  /// What a connection sends after we closed it is read and dropped, so that our last reply arrives and no reset.
  private func dropArrived(_ connection: UnsafeMutablePointer<Connection>) { unsafe resumeReading(connection) }
}
