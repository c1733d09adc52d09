// The methods of a connection that send and end: send, write, close, abort, pause, resume, buffered, closed, set_codec.

import Codecs
import CompletionIO
import LuaRuntime

extension Interface {
  static let connectionFunctions: [HostFunction] = [
    HostFunction("connection:send", "cm*") { Worker.of($0).sendFromScript(HostCall($1!)) },
    HostFunction("connection:write", "cs*") { Worker.of($0).writeFromScript(HostCall($1!)) },
    HostFunction("connection:close", "cs?") { context, call in
      let call = HostCall(call!)
      Worker.of(context).withConnection(call) { worker, connection in
        worker.close(connection, .script(call[1].isNil ? "script" : call[1].text))
        call.returns(.boolean(true))
      }
    },
    HostFunction("connection:abort", "c") { context, call in
      let call = HostCall(call!)
      Worker.of(context).withConnection(call) { worker, connection in
        worker.lost(connection, .script("script"))
        call.returns(.boolean(true))
      }
    },
    HostFunction("connection:pause", "c") { context, call in
      let call = HostCall(call!)
      Worker.of(context).withConnection(call) { worker, connection in
        connection.pointee.flags.insert(.scriptPaused)
        worker.port.cancelRead(connection.pointee.key)
        connection.pointee.flags.remove(.reading)
        call.returns(.boolean(true))
      }
    },
    HostFunction("connection:resume", "c") { context, call in
      let call = HostCall(call!)
      Worker.of(context).withConnection(call) { worker, connection in
        connection.pointee.flags.remove(.scriptPaused)
        if !connection.pointee.inbound.isEmpty { worker.markReady(connection) }
        worker.resumeReading(connection)
        call.returns(.boolean(true))
      }
    },
    HostFunction("connection:buffered", "c") { context, call in
      let call = HostCall(call!)
      Worker.of(context).withConnection(call) { _, connection in
        call.returns(.integer(Int64(connection.pointee.output.count)))
      }
    },
    HostFunction("connection:closed", "c") { context, call in
      let call = HostCall(call!)
      let connection = Worker.of(context).table.find(ConnectionID(rawValue: call[0].asConnection ?? 0).key)
      call.returns(.boolean(!(connection?.pointee.isUsable ?? false)))
    },
    HostFunction("check_connection", "c") { _, _ in },
    HostFunction("is_connection", "a") { _, call in
      let call = HostCall(call!)
      call.returns(.boolean(call[0].asConnection != nil))
    },
    HostFunction("use_codec", "ci") { context, call in
      let call = HostCall(call!)
      Worker.of(context).useCodec(call)
    },
  ]
}

extension Worker {
  /// Calls `body` with the connection that is the first argument, or returns `nil, "closed"` to the script.
  @inline(__always)
  func withConnection(_ call: HostCall, _ body: (Worker, UnsafeMutablePointer<Connection>) -> Void) {
    guard let connection = usable(call) else { return call.fails("closed") }
    body(self, connection)
  }

  /// The connection that is the first argument, while scripts may use it.
  @inline(__always)
  private func usable(_ call: HostCall) -> UnsafeMutablePointer<Connection>? {
    guard let connection = table.find(ConnectionID(rawValue: call[0].asConnection ?? 0).key),
      connection.pointee.isUsable
    else { return nil }
    return connection
  }

  fileprivate func sendFromScript(_ call: HostCall) {
    guard let connection = usable(call) else { return call.fails("closed") }
    guard case .builtin(let codec) = codecs[connection.pointee.codec] else {
      return sendScripted(call, connection)
    }
    if let wrong = call.firstVariadicNotString { return call.raisesTypeError(argument: wrong, expected: "string") }
    let count = variadicBytes(call)
    let framing: Framing
    do throws(FramingError) {
      framing = try codec.framing(payloadCount: count)
    } catch {
      return raise(call, "send: \(error)")
    }
    let (result, room) = makeRoom(connection, count + framing.overhead)
    guard let room else { return report(result, call) }
    let start = framing.copyPrefix(to: room)
    copyVariadic(call, to: room + start)
    framing.copySuffix(to: room + start + count)
    queued(connection, count + framing.overhead)
    call.returns(.boolean(true))
  }

  fileprivate func writeFromScript(_ call: HostCall) {
    guard let connection = usable(call) else { return call.fails("closed") }
    let count = variadicBytes(call)
    let (result, room) = makeRoom(connection, count)
    guard let room else { return report(result, call) }
    copyVariadic(call, to: room)
    queued(connection, count)
    call.returns(.boolean(true))
  }

  private func variadicBytes(_ call: HostCall) -> Int {
    var count = 0
    for index in 0..<call.variadicCount { count += call.variadic(index).count }
    return count
  }

  private func copyVariadic(_ call: HostCall, to room: UnsafeMutableRawPointer) {
    var end = room
    for index in 0..<call.variadicCount {
      let bytes = call.variadic(index)
      if let base = bytes.baseAddress { end.copyMemory(from: base, byteCount: bytes.count) }
      end += bytes.count
    }
  }

  /// Tells the script what came of queueing.
  func report(_ result: SendResult, _ call: HostCall) {
    switch result {
    case .queued: call.returns(.boolean(true))
    case .closed: call.fails("closed")
    case .overflow: call.fails("overflow")
    }
  }

  /// Raises an error with a text made for this case; the text is kept until Lua has copied it.
  func raise(_ call: HostCall, _ message: String) {
    var message = message
    message.withUTF8 { bytes in
      call.raises(.bytes(scratch.copy(UnsafeRawBufferPointer(bytes))))
    }
  }

  /// Returns `nil` and a text made for this case.
  func fail(_ call: HostCall, _ message: String) {
    var message = message
    message.withUTF8 { bytes in
      call.returns(.nil, .bytes(scratch.copy(UnsafeRawBufferPointer(bytes))))
    }
  }

  /// Returns a text made for this call.
  func returnText(_ call: HostCall, _ text: String) {
    var text = text
    text.withUTF8 { bytes in
      call.returns(.bytes(scratch.copy(UnsafeRawBufferPointer(bytes))))
    }
  }

  fileprivate func useCodec(_ call: HostCall) {
    guard let connection = usable(call) else { return call.fails("closed") }
    let index = UInt16(truncatingIfNeeded: call[1].asInteger ?? 0)
    codecs.retain(index)
    codecs.release(connection.pointee.codec, lua: lua)
    connection.pointee.codec = index
    connection.pointee.flags.insert(.ownCodec)
    connection.pointee.decoder.reset()
    if cutting.key == connection.pointee.key {
      // The next codec starts at position 1 of what is left.
      lua.release(cutting.text)
      cutting.text = .none
    }
    call.returns(.boolean(true))
  }
}
