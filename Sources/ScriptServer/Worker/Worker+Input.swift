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
  static let messagesPerTurnMax = 256
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
    // What comes after we closed is read and dropped, so that our last reply arrives and no reset.
    guard unsafe connection.pointee.phase == .open else { return unsafe resumeReading(connection) }
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
    cutting.left = unsafe messagesLeft(connection, most: messageShare.isUsedUp ? 1 : Self.messagesPerTurnMax)
    while unsafe cutNext(connection, key) {}
    cutting.key = .none
    unsafe cutting.connection = nil
    if cutting.text.exists { lua.release(cutting.text) }
    guard let connection = unsafe table.find(key) else { return }
    unsafe connection.pointee.flags.remove(.cutting)
    guard unsafe connection.pointee.phase == .open else {
      unsafe connection.pointee.inbound.release()
      return unsafe resumeReading(connection)
    }
    guard unsafe keepRest(of: connection) else { return }
    unsafe afterCutting(connection)
  }

  /// One step of the cutting; false when there is nothing more to do now.
  private func cutNext(_ connection: UnsafeMutablePointer<Connection>, _ key: HandleKey) -> Bool {
    unsafe spreadBeforeNext(of: connection)
    if !due.isEmpty { settle() }
    guard unsafe connection.pointee.key == key, unsafe connection.pointee.phase == .open else { return false }
    if unsafe connection.pointee.flags.contains(.piped) { return false }
    if unsafe connection.pointee.receiver != .none, unsafe connection.pointee.flags.isDisjoint(with: .starved) {
      cutting.left = unsafe messagesLeft(connection, most: cutting.left)
      if cutting.left <= 0 { return unsafe outOfMessages(connection) }
      return unsafe feedReceiver(connection)
    }
    if unsafe !connection.pointee.flags.isDisjoint(with: .holdsMessages) { return false }
    if cutting.left <= 0 { return unsafe outOfMessages(connection) }
    let message = unsafe cutMessage(connection)
    if unsafe message.isNone { return unsafe takeNext(connection) }
    unsafe startMessages(connection, message)
    if !due.isEmpty { settle() }
    // With nothing left to cut there may still be someone who waits for it, or for the end.
    return unsafe cutting.offset < cutting.bytes.count || connection.pointee.receiver != .none
      || connection.pointee.flags.contains(.endOfStream)
  }

  /// One step of the cutting where no built-in codec has cut a message off: a codec in Lua does, or none is there.
  private func takeNext(_ connection: UnsafeMutablePointer<Connection>) -> Bool {
    switch unsafe take(connection, .message) {
    case .bytes(let bytes): unsafe startMessages(connection, LuaBytes(bytes))
    case .value(let reference):
      unsafe startMessage(connection, reference)
      lua.release(reference)
    case .incomplete, .ended: return false
    case .failed(let reason):
      unsafe close(connection, reason)
      return false
    }
    if !due.isEmpty { settle() }
    return true
  }

  /// Hands over a message that a codec in Lua made.
  private func startMessage(_ connection: UnsafeMutablePointer<Connection>, _ message: LuaReference) {
    let handler = unsafe handlers(of: connection).message
    guard handler.exists else { return }
    unsafe connection.pointee.flags.insert(.busy)
    unsafe start(
      handler, LuaArguments(.reference(connection.pointee.object), .reference(message)), messageOwner(connection))
  }

  /// Hands a message over, and those behind it on the same coroutine as long as its handler returns without waiting.
  private func startMessages(_ connection: UnsafeMutablePointer<Connection>, _ first: LuaBytes) {
    let handler = unsafe handlers(of: connection).message
    guard handler.exists else { return }
    unsafe connection.pointee.flags.insert(.busy)
    unsafe startMessages(handler, connection.pointee.object, first, messageOwner(connection)) { context in
      unsafe Worker.lend(context) { unsafe $0.nextMessage() }
    }
  }

  private func messageOwner(_ connection: UnsafeMutablePointer<Connection>) -> TaskOwner {
    unsafe TaskOwner(
      kind: .message, connection: connection.pointee.key, codeGeneration: codeGeneration(of: connection))
  }

  /// The next message of the connection whose handler has just returned, if it may be handed over at once: nothing else that
  /// the handler decided comes first.
  private func nextMessage() -> LuaBytes {
    guard let connection = unsafe cutting.connection else { return unsafe .none }
    unsafe spreadBeforeNext(of: connection)
    guard cutting.left > 0, unsafe mayHandOverNext(connection) else { return unsafe .none }
    return unsafe cutMessage(connection)
  }

  /// Whether nothing but the return of the running handler has to come before the next message of the connection that is being cut.
  @inline(__always)
  func mayHandOverNext(_ connection: UnsafeMutablePointer<Connection>) -> Bool {
    unsafe due.isEmpty && running?.token == TaskToken.none && connection.pointee.key == cutting.key
      && connection.pointee.phase == .open && connection.pointee.flags.isDisjoint(with: .paused)
      && connection.pointee.receiver == .none
  }

  /// Cuts the next message off the bytes of the connection that is being cut, by its built-in codec; none where they hold none.
  @inline(__always)
  private func cutMessage(_ connection: UnsafeMutablePointer<Connection>) -> LuaBytes {
    let rest = unsafe cutting.bytes.count - cutting.offset
    guard rest > 0, case .builtin(let codec) = unsafe codecs[connection.pointee.codec] else { return unsafe .none }
    let start = unsafe cutting.bytes.baseAddress! + cutting.offset
    let bytes = unsafe UnsafeRawBufferPointer(start: start, count: rest)
    guard case .message(let payload, let consumed) = unsafe connection.pointee.decoder.next(codec, in: bytes) else {
      return unsafe .none
    }
    spendMessages()
    cutting.offset += consumed
    unsafe countMessages(connection)
    return unsafe LuaBytes(start + payload.lowerBound, count: payload.count)
  }

  /// Counts messages that were taken off the connection that is being cut. They are its last ones in this turn if the turn has no time
  /// for more.
  @inline(__always)
  func spendMessages(_ count: Int = 1) {
    cutting.left -= count
    messageShare.spend(count)
    if messageShare.isUsedUp { cutting.left = 0 }
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

  /// Keeps what is left of the bytes that were cut.
  private func keepRest(of connection: UnsafeMutablePointer<Connection>) -> Bool {
    if cutting.isInbound {
      unsafe connection.pointee.inbound.consume(cutting.offset)
      return true
    }
    return unsafe cutting.offset == cutting.bytes.count
      || keep(UnsafeRawBufferPointer(rebasing: cutting.bytes[cutting.offset...]), of: connection)
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
}
