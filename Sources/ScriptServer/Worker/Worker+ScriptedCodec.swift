// Codecs written in Lua: decoding and framing by the script's own functions. The slow way by choice; the built-in codecs
// never come here.

import Codecs
import CompletionIO
import Logging
import LuaRuntime

extension Worker {
  /// Asks `decode` for the next message of a connection.
  ///
  /// While bytes are being cut, all of them are one Lua string and `position` moves on in it.
  func takeScripted(
    _ connection: UnsafeMutablePointer<Connection>, _ bytes: UnsafeRawBufferPointer, decode: LuaReference,
    maxLength: Int
  ) -> Taken {
    if unsafe bytes.isEmpty { return .incomplete }
    let isCutting = unsafe cutting.key == connection.pointee.key
    let text = unsafe isCutting ? textBeingCut(bytes) : lua.makeString(bytes)
    defer { if !isCutting { lua.release(text) } }
    guard text.exists else {
      log.error("out of memory for a codec", metadata: ["id": unsafe "\(id(of: connection).rawValue)"])
      return .failed(.error)
    }
    let position = isCutting ? cutting.offset - cutting.textOffset + 1 : 1
    var arguments = unsafe LuaArguments(.reference(decode), .reference(text))
    unsafe arguments.append(.integer(Int64(position)))
    let key = unsafe connection.pointee.key
    switch lua.call(prelude.decode, arguments, { scriptedStep($0, position) }) {
    case .message(let message, let consumed):
      // The script's function may have closed the connection.
      guard unsafe connection.pointee.key == key, unsafe connection.pointee.phase == .open else {
        lua.release(message)
        return .failed(.error)
      }
      unsafe countMessages(connection)
      unsafe skip(connection, consumed)
      return .value(message)
    case .incomplete:
      let isGone = unsafe connection.pointee.key != key || connection.pointee.phase != .open
      return isGone ? .failed(.error) : bytes.count > maxLength ? .failed(.tooLong) : .incomplete
    case .failed(let failure):
      counters.errors.add(1)
      log.error(
        "a codec's decode failed: \(failure.message)", metadata: ["id": unsafe "\(id(of: connection).rawValue)"])
      return .failed(.error)
    }
  }

  private func scriptedStep(_ outcome: LuaOutcome, _ position: Int) -> ScriptedStep {
    if let failure = outcome.failure { return .failed(failure) }
    guard let next = unsafe outcome[0].asInteger else { return .incomplete }
    let message = lua.keep(outcome, 1)
    if !message.exists { return .failed(LuaFailure(message: "not enough memory")) }
    return .message(message, consumed: Int(next) - position)
  }

  /// The bytes being cut as one Lua string, made when the first message is asked for.
  private func textBeingCut(_ bytes: UnsafeRawBufferPointer) -> LuaReference {
    if !cutting.text.exists {
      cutting.text = unsafe lua.makeString(bytes)
      cutting.textOffset = cutting.offset
    }
    return cutting.text
  }

  private enum ScriptedStep {
    case message(LuaReference, consumed: Int)
    case incomplete
    case failed(LuaFailure)
  }

  /// Moves on without looking at the bytes: Lua has its own copy.
  func skip(_ connection: UnsafeMutablePointer<Connection>, _ consumed: Int) {
    if unsafe cutting.key == connection.pointee.key {
      cutting.offset += consumed
      spendMessages()
    } else {
      takenBesides += 1
      unsafe connection.pointee.inbound.consume(consumed)
    }
  }

  /// conn:send on a connection with a codec in Lua: the bridge calls `encode` with the one argument, which may be of any
  /// type, and then calls back with the bytes.
  func sendScripted(_ call: HostCall, _ connection: UnsafeMutablePointer<Connection>) {
    guard case .scripted(_, let encode, _) = unsafe codecs[connection.pointee.codec] else { return }
    guard let bytes = unsafe call.encoded else { return call.encodes(with: prelude.encode, encode) }
    unsafe report(write(connection, bytes), call)
  }

  /// Frames a text message, of a broadcast or sent by id, by `encode`.
  func sendScripted(_ connection: UnsafeMutablePointer<Connection>, _ message: UnsafeRawBufferPointer) -> SendResult {
    guard case .scripted(_, let encode, _) = unsafe codecs[connection.pointee.codec] else { return .closed }
    return unsafe lua.call(prelude.encode, LuaArguments(.reference(encode), .bytes(message))) { outcome in
      guard outcome.failure == nil, let bytes = unsafe outcome[0].asBytes else {
        counters.errors.add(1)
        log.error("a codec's encode failed: \(outcome.failure?.message ?? "no bytes")")
        return .overflow
      }
      return unsafe write(connection, bytes)
    }
  }
}
