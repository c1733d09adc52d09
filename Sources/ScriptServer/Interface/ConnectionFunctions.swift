// The methods of a connection that send and end: send, write, close, abort, pause, resume, buffered, closed, set_codec.

import Codecs
import CompletionIO
import LuaRuntime

extension Interface {
  static let connectionFunctions: [HostFunction] = unsafe [
    HostFunction(
      "connection:send", "cm*",
      direct: { context, id, base, count, outbox in
        let bytes = unsafe UnsafeRawBufferPointer(start: base, count: count)
        return unsafe Worker.lend(context) { unsafe $0.sendDirectly(ConnectionID(rawValue: id), bytes, outbox) }
      },
      frames: true,
      { context, call in unsafe Worker.lend(context) { unsafe $0.sendFromScript(HostCall(call!)) } }),
    unsafe HostFunction(
      "connection:write", "cs*",
      direct: { context, id, base, count, outbox in
        let bytes = unsafe UnsafeRawBufferPointer(start: base, count: count)
        return unsafe Worker.lend(context) { unsafe $0.writeDirectly(ConnectionID(rawValue: id), bytes, outbox) }
      },
      { context, call in unsafe Worker.lend(context) { unsafe $0.writeFromScript(HostCall(call!)) } }),
    unsafe HostFunction("connection:close", "cs?") { context, call in
      let call = unsafe HostCall(call!)
      unsafe Worker.of(context).withConnection(call) { worker, connection in
        unsafe worker.close(connection, .script(call[1].isNil ? "script" : call[1].text))
        unsafe call.returns(.boolean(true))
      }
    },
    unsafe HostFunction("connection:abort", "c") { context, call in
      let call = unsafe HostCall(call!)
      unsafe Worker.of(context).withConnection(call) { worker, connection in
        unsafe worker.lost(connection, .script("script"))
        unsafe call.returns(.boolean(true))
      }
    },
    unsafe HostFunction("connection:pause", "c") { context, call in
      let call = unsafe HostCall(call!)
      unsafe Worker.of(context).withConnection(call) { worker, connection in
        if unsafe connection.pointee.flags.contains(.piped) { return call.fails("piped") }
        unsafe connection.pointee.flags.insert(.scriptPaused)
        unsafe worker.port.cancelRead(connection.pointee.key)
        unsafe connection.pointee.flags.remove(.reading)
        unsafe call.returns(.boolean(true))
      }
    },
    unsafe HostFunction("connection:resume", "c") { context, call in
      let call = unsafe HostCall(call!)
      unsafe Worker.of(context).withConnection(call) { worker, connection in
        if unsafe connection.pointee.flags.contains(.piped) { return call.fails("piped") }
        unsafe connection.pointee.flags.remove(.scriptPaused)
        if unsafe !connection.pointee.inbound.isEmpty || connection.pointee.flags.contains(.endOfStream) {
          unsafe worker.markReady(connection)
        }
        unsafe worker.resumeReading(connection)
        unsafe call.returns(.boolean(true))
      }
    },
    unsafe HostFunction("connection:buffered", "c") { context, call in
      let call = unsafe HostCall(call!)
      unsafe Worker.of(context).withConnection(call) { worker, connection in
        unsafe call.returns(.integer(Int64(connection.pointee.output.count)))
      }
    },
    unsafe HostFunction("connection:closed", "c") { context, call in
      let call = unsafe HostCall(call!)
      let key = unsafe ConnectionID(rawValue: call[0].asConnection ?? 0).key
      let worker = unsafe Worker.of(context)
      worker.spreadBeforeUse(of: key)
      unsafe call.returns(.boolean(!(worker.table.find(key)?.pointee.isUsable ?? false)))
    },
    unsafe HostFunction("is_connection", "a") { _, call in
      let call = unsafe HostCall(call!)
      unsafe call.returns(.boolean(call[0].asConnection != nil))
    },
    unsafe HostFunction("use_codec", "ci") { context, call in
      let call = unsafe HostCall(call!)
      unsafe Worker.of(context).useCodec(call)
    },
  ]
}

extension Worker {
  /// Calls `body` with the connection that is the first argument, or returns `nil, "closed"` to the script. What was broadcast to
  /// it before has reached it, and may have ended it.
  @inline(__always)
  func withConnection(_ call: HostCall, _ body: (Worker, UnsafeMutablePointer<Connection>) -> Void) {
    unsafe spreadBeforeUse(of: ConnectionID(rawValue: call[0].asConnection ?? 0).key)
    guard let connection = unsafe usable(call) else { return call.fails("closed") }
    unsafe body(self, connection)
  }

  /// The connection that is the first argument, while scripts may use it.
  @inline(__always)
  private func usable(_ call: HostCall) -> UnsafeMutablePointer<Connection>? {
    guard let connection = unsafe table.find(ConnectionID(rawValue: call[0].asConnection ?? 0).key),
      unsafe connection.pointee.isUsable
    else { return nil }
    return unsafe connection
  }

  /// `send` of one string with nothing in its way; false leaves the call to `sendFromScript`.
  fileprivate func sendDirectly(
    _ id: ConnectionID, _ message: UnsafeRawBufferPointer, _ outbox: HostOutboxPointer?
  ) -> Bool {
    guard let connection = unsafe table.find(id.key),
      case .builtin(let codec) = unsafe codecs[connection.pointee.codec],
      let count = try? codec.framedCount(message.count), count > 0,
      unsafe isUnwatched(connection, adding: count)
    else { return false }
    unsafe codec.writeFrame(of: message, to: connection.pointee.output.reserve(count, pool: pool))
    unsafe queued(connection, count)
    if let outbox = unsafe outbox { unsafe offer(HostOutbox(outbox), to: connection, codec) }
    return true
  }

  /// As `sendDirectly` for `write`.
  fileprivate func writeDirectly(
    _ id: ConnectionID, _ bytes: UnsafeRawBufferPointer, _ outbox: HostOutboxPointer?
  ) -> Bool {
    guard let connection = unsafe table.find(id.key), let base = bytes.baseAddress, bytes.count > 0,
      case .builtin(let codec) = unsafe codecs[connection.pointee.codec],
      unsafe isUnwatched(connection, adding: bytes.count)
    else { return false }
    let room = unsafe connection.pointee.output.reserve(bytes.count, pool: pool)
    unsafe room.copyMemory(from: base, byteCount: bytes.count)
    unsafe queued(connection, bytes.count)
    if let outbox = unsafe outbox { unsafe offer(HostOutbox(outbox), to: connection, codec) }
    return true
  }

  fileprivate func sendFromScript(_ call: HostCall) {
    guard let connection = unsafe usable(call) else { return call.fails("closed") }
    guard case .builtin(let codec) = unsafe codecs[connection.pointee.codec] else {
      return unsafe sendScripted(call, connection)
    }
    let single = unsafe call.singleVariadic
    if unsafe single == nil, let wrong = call.firstVariadicNotString {
      return call.raisesTypeError(argument: wrong, expected: "string")
    }
    let count = unsafe single?.count ?? variadicBytes(call)
    let framedCount: Int
    do throws(FramingError) {
      framedCount = try codec.framedCount(count)
    } catch {
      return raise(call, "send: \(error)")
    }
    let (result, room) = unsafe makeRoom(connection, framedCount)
    guard let room = unsafe room else { return report(result, call) }
    if let single = unsafe single {
      unsafe codec.writeFrame(of: single, to: room)
    } else if let framing = try? codec.framing(payloadCount: count) {
      let start = unsafe framing.copyPrefix(to: room)
      unsafe copyVariadic(call, to: room + start)
      unsafe framing.copySuffix(to: room + start + count)
    }
    unsafe queued(connection, framedCount)
    unsafe call.returns(.boolean(true))
  }

  fileprivate func writeFromScript(_ call: HostCall) {
    guard let connection = unsafe usable(call) else { return call.fails("closed") }
    if let single = unsafe call.singleVariadic { return unsafe report(write(connection, single), call) }
    let count = variadicBytes(call)
    let (result, room) = unsafe makeRoom(connection, count)
    guard let room = unsafe room else { return report(result, call) }
    unsafe copyVariadic(call, to: room)
    unsafe queued(connection, count)
    unsafe call.returns(.boolean(true))
  }

  private func variadicBytes(_ call: HostCall) -> Int {
    var count = 0
    for index in 0..<call.variadicCount { unsafe count += call.variadic(index).count }
    return count
  }

  private func copyVariadic(_ call: HostCall, to room: UnsafeMutableRawPointer) {
    var end = unsafe room
    for index in 0..<call.variadicCount {
      let bytes = unsafe call.variadic(index)
      if let base = bytes.baseAddress { unsafe end.copyMemory(from: base, byteCount: bytes.count) }
      unsafe end += bytes.count
    }
  }

  /// Tells the script what came of queueing.
  func report(_ result: SendResult, _ call: HostCall) {
    switch result {
    case .queued: unsafe call.returns(.boolean(true))
    case .closed: call.fails("closed")
    case .overflow: call.fails("overflow")
    case .piped: call.fails("piped")
    case .unframable: call.fails("unframable")
    }
  }

  /// Raises an error with a text made for this case; the text is kept until Lua has copied it.
  func raise(_ call: HostCall, _ message: String) {
    var message = message
    message.withUTF8 { bytes in
      unsafe call.raises(.bytes(scratch.copy(UnsafeRawBufferPointer(bytes))))
    }
  }

  /// Returns `nil` and a text made for this case.
  func fail(_ call: HostCall, _ message: String) {
    var message = message
    message.withUTF8 { bytes in
      unsafe call.returns(.nil, .bytes(scratch.copy(UnsafeRawBufferPointer(bytes))))
    }
  }

  /// Returns a text made for this call.
  func returnText(_ call: HostCall, _ text: String) {
    var text = text
    text.withUTF8 { bytes in
      unsafe call.returns(.bytes(scratch.copy(UnsafeRawBufferPointer(bytes))))
    }
  }

  fileprivate func useCodec(_ call: HostCall) {
    // The codec was entered for this call: its one use is the connection's.
    let index = unsafe UInt16(truncatingIfNeeded: call[1].asInteger ?? 0)
    unsafe spreadBeforeUse(of: ConnectionID(rawValue: call[0].asConnection ?? 0).key)
    guard let connection = unsafe usable(call) else {
      codecs.release(index, lua: lua)
      return call.fails("closed")
    }
    unsafe codecs.release(connection.pointee.codec, lua: lua)
    unsafe connection.pointee.codec = index
    unsafe connection.pointee.flags.insert(.ownCodec)
    unsafe connection.pointee.decoder.reset()
    if unsafe cutting.key == connection.pointee.key {
      // The next codec starts at position 1 of what is left.
      lua.release(cutting.text)
      cutting.text = .none
    } else if unsafe !connection.pointee.inbound.isEmpty {
      // What has come may be a message by the new codec, although nothing more comes.
      unsafe markReady(connection)
    }
    unsafe call.returns(.boolean(true))
  }
}
