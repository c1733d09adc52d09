// conn:receive: the next message or a piece of the stream, at once when it has come, else by waiting.

import Codecs
import CompletionIO
import LuaRuntime

extension Interface {
  static let receiveFunctions: [HostFunction] = unsafe [
    HostFunction("connection:receive", "ca?n?", waits: true) { unsafe Worker.of($0).receiveFromScript(HostCall($1!)) }
  ]
}

extension Worker {
  fileprivate func receiveFromScript(_ call: HostCall) {
    guard let request = receiveRequest(call) else { return }
    if refuseWaitIfEnding(call) { return }
    let key = unsafe ConnectionID(rawValue: call[0].asConnection ?? 0).key
    guard let connection = unsafe table.find(key) else { return call.fails("closed") }
    unsafe spreadBeforeNext(of: connection)
    guard unsafe connection.pointee.phase == .open else { return call.fails("closed") }
    if unsafe connection.pointee.flags.contains(.piped) { return call.fails("piped") }
    if unsafe connection.pointee.receiver != .none {
      return unsafe call.raises(.text("another coroutine already receives from this connection"))
    }
    if unsafe connection.pointee.flags.contains(.outputPaused), unsafe !unconsumed(connection).isEmpty {
      // A client that does not take its answers is not asked for more questions.
      return unsafe waitToReceive(call, connection, request)
    }
    if unsafe hasTakenEnough(connection) {
      // The cutting goes on in the next turn, or holds it back, or ends it.
      unsafe markReady(connection)
      return unsafe waitToReceive(call, connection, request)
    }
    if unsafe connection.pointee.flags.contains(.endOfStream) {
      // If this takes the last of what the client sent, its end is next, whatever the handler does then.
      unsafe markReady(connection)
    }
    switch unsafe take(connection, request) {
    case .bytes(let bytes): unsafe call.returns(.bytes(bytes))
    case .value(let reference): unsafe call.returns(.given(reference))
    case .ended(let rest): unsafe call.returns(.nil, .text("closed"), .bytes(rest))
    case .failed(let reason):
      unsafe close(connection, reason)
      call.fails("closed")
    case .incomplete:
      // A codec in Lua may have closed the connection that it was asked to decode for.
      guard unsafe table.find(key) != nil, unsafe connection.pointee.phase == .open else { return call.fails("closed") }
      unsafe waitToReceive(call, connection, request)
    }
  }

  private func waitToReceive(
    _ call: HostCall, _ connection: UnsafeMutablePointer<Connection>, _ request: ReceiveRequest
  ) {
    let seconds = unsafe call[2].asNumber
    let until = seconds.map { CompletionPort.clock() &+ Self.nanoseconds($0) }
    guard let token = unsafe tokenToWait(.receive(connection.pointee.key, request), until: until) else {
      return unsafe call.raises(.text("too many suspended tasks on this worker"))
    }
    unsafe connection.pointee.receiver = token
    unsafe resumeReading(connection)
    call.waits()
  }

  /// What the second argument asks for; nil when it is wrong, which is raised.
  private func receiveRequest(_ call: HostCall) -> ReceiveRequest? {
    let what = unsafe call[1]
    if unsafe what.isNil { return .message }
    if let count = unsafe what.asInteger {
      if count >= 0, count <= Int64(Self.receiveAllBytesMax) { return .exactly(Int(count)) }
      raise(call, "receive: the number of bytes must be from 0 to \(Self.receiveAllBytesMax), not \(count)")
      return nil
    }
    switch unsafe what.text {
    case "*l": return .line
    case "*a": return .all
    default:
      raise(call, "receive: argument #1 must be a number of bytes, \"*l\" or \"*a\"")
      return nil
    }
  }
}
