// conn:receive: the next message or a piece of the stream, at once when it has come, else by waiting.

import CompletionIO
import LuaRuntime

extension Interface {
  static let receiveFunctions: [HostFunction] = [
    HostFunction("connection:receive", "ca?n?", waits: true) { Worker.of($0).receiveFromScript(HostCall($1!)) }
  ]
}

extension Worker {
  fileprivate func receiveFromScript(_ call: HostCall) {
    guard let request = receiveRequest(call) else { return }
    if runningIsEnding { return call.raises(.text("reloaded")) }
    guard let connection = table.find(ConnectionID(rawValue: call[0].asConnection ?? 0).key),
      connection.pointee.phase == .open
    else { return call.fails("closed") }
    if connection.pointee.receiver != .none {
      return call.raises(.text("another coroutine already receives from this connection"))
    }
    switch take(connection, request) {
    case .bytes(let bytes): call.returns(.bytes(bytes))
    case .value(let reference): call.returns(.reference(reference))
    case .ended(let rest): call.returns(.nil, .text("closed"), .bytes(rest))
    case .failed(let reason):
      close(connection, reason)
      call.fails("closed")
    case .incomplete: waitToReceive(call, connection, request)
    }
  }

  private func waitToReceive(
    _ call: HostCall, _ connection: UnsafeMutablePointer<Connection>, _ request: ReceiveRequest
  ) {
    let seconds = call[2].asNumber
    let until = seconds.map { CompletionPort.clock() &+ Self.nanoseconds($0) }
    guard let token = tokenToWait(.receive(connection.pointee.key, request), until: until) else {
      return call.raises(.text("too many suspended tasks on this worker"))
    }
    connection.pointee.receiver = token
    resumeReading(connection)
    call.waits()
  }

  /// What the second argument asks for; nil when it is wrong, which is raised.
  private func receiveRequest(_ call: HostCall) -> ReceiveRequest? {
    let what = call[1]
    if what.isNil { return .message }
    if let count = what.asInteger {
      if count >= 0, count <= Int64(Self.receiveAllBytesMax) { return .exactly(Int(count)) }
      raise(call, "receive: the number of bytes must be from 0 to \(Self.receiveAllBytesMax), not \(count)")
      return nil
    }
    switch what.text {
    case "*l": return .line
    case "*a": return .all
    default:
      raise(call, "receive: argument #1 must be a number of bytes, \"*l\" or \"*a\"")
      return nil
    }
  }
}
