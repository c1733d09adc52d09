// conn:join, conn:leave and conn:rooms.

import CompletionIO
import LuaRuntime

extension Interface {
  static let roomFunctions: [HostFunction] = unsafe [
    HostFunction("connection:join", "cs") { context, call in
      let call = unsafe HostCall(call!)
      let room = unsafe RoomName(call[1].asBytes!)
      let worker = unsafe Worker.of(context)
      if room.bytes.count > RoomName.bytesMax {
        let problem = "a room's name has at most \(RoomName.bytesMax) bytes, not \(room.bytes.count)"
        return worker.raise(call, "join: \(problem)")
      }
      worker.spread(before: room)
      unsafe worker.withOpen(call) { worker, connection in
        switch unsafe worker.rooms.join(connection, room: room) {
        case .joined: unsafe call.returns(.boolean(true))
        case .alreadyIn: unsafe call.returns(.boolean(false))
        case .tooMany: call.fails("too many rooms")
        }
      }
    },
    unsafe HostFunction("connection:leave", "cs") { context, call in
      let call = unsafe HostCall(call!)
      let room = unsafe RoomName(call[1].asBytes!)
      let worker = unsafe Worker.of(context)
      worker.spread(before: room)
      unsafe worker.withOpen(call) { worker, connection in
        unsafe call.returns(.boolean(worker.rooms.leave(connection, room: room)))
      }
    },
    unsafe HostFunction("connection:rooms", "c") { context, call in
      let call = unsafe HostCall(call!)
      unsafe Worker.of(context).withOpen(call) { worker, connection in
        unsafe worker.returnTexts(call, worker.rooms.names(of: connection).map(\.bytes))
      }
    },
  ]
}

extension Worker {
  /// As `withConnection`, for what only a connection that has not ended can do.
  fileprivate func withOpen(_ call: HostCall, _ body: (Worker, UnsafeMutablePointer<Connection>) -> Void) {
    unsafe withConnection(call) { worker, connection in
      guard unsafe connection.pointee.phase == .open else { return call.fails("closed") }
      unsafe body(worker, connection)
    }
  }

  /// Returns a sequence of texts.
  func returnTexts(_ call: HostCall, _ texts: [[UInt8]]) { unsafe call.returns(textList(texts)) }

  /// A sequence of texts, laid out in the scratch memory: the values first, then their bytes.
  func textList(_ texts: [[UInt8]]) -> LuaValue {
    let valueBytes = unsafe texts.count * MemoryLayout<LuaValue>.stride
    let block = unsafe scratch.reserve(texts.reduce(valueBytes) { $0 + $1.count })
    let values = unsafe block.baseAddress!.bindMemory(to: LuaValue.self, capacity: max(texts.count, 1))
    var end = valueBytes
    for (index, text) in texts.enumerated() {
      let room = unsafe UnsafeMutableRawBufferPointer(rebasing: block[end..<end + text.count])
      unsafe room.copyBytes(from: text)
      unsafe (values + index).initialize(to: .bytes(UnsafeRawBufferPointer(room)))
      end += text.count
    }
    return unsafe .list(UnsafeBufferPointer(start: values, count: texts.count))
  }
}
