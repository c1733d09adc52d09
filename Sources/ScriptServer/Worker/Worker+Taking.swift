// Messages and bytes off a connection, one at a time and as they are asked for: by `receive`, by a codec written in Lua, and at the
// end of a stream. Most messages do not come this way but are cut in a row (Worker+Input).

import Codecs
import CompletionIO
import Logging
import LuaRuntime

extension Worker {
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
    let codec = unsafe connection.pointee.codec
    let taken: Taken
    switch request {
    case .message: taken = unsafe takeMessage(connection, bytes)
    case .exactly(let count):
      if bytes.count < count { taken = .incomplete } else { return unsafe takeBytes(connection, 0..<count, count) }
    case .line: taken = unsafe takeLine(connection, bytes)
    case .all: taken = unsafe takeAll(connection, bytes)
    }
    // A codec in Lua may have closed the connection, or taken bytes of it, while it was asked for a message.
    if case .incomplete = taken, unsafe connection.pointee.codec != codec {
      // Its decode has set another one, which is asked in the next turn.
      unsafe markReady(connection)
      return taken
    }
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
        unsafe countMessages(connection)
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
    unsafe countMessages(connection)
    return unsafe .bytes(consume(connection, payload, consumed))
  }

  private func takeRest(_ connection: UnsafeMutablePointer<Connection>) -> UnsafeRawBufferPointer {
    unsafe connection.pointee.decoder.reset()
    let count = unsafe unconsumed(connection).count
    return unsafe consume(connection, 0..<count, count)
  }

  func countMessages(_ connection: UnsafeMutablePointer<Connection>, _ count: Int = 1) {
    unsafe connection.pointee.messagesIn &+= UInt32(count)
    unsafe connection.pointee.lastMessageAt = now
    unsafe connection.pointee.messageBegunAt = 0
    counters.messagesIn.add(count)
  }

  /// Whether the connection has none left of the messages that may be taken off it in this turn: those of its rate, and no more than
  /// keep the others waiting.
  func hasTakenEnough(_ connection: UnsafeMutablePointer<Connection>) -> Bool {
    let left =
      unsafe cutting.key == connection.pointee.key ? cutting.left : Self.messagesPerTurnMax - takenBesides
    return unsafe left <= 0 || messagesLeft(connection, most: 1) <= 0
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
      spendMessages()
      return unsafe bytes
    }
    takenBesides += 1
    let copy = unsafe scratch.copy(bytes)
    unsafe connection.pointee.inbound.consume(consumed)
    return unsafe copy
  }
}
