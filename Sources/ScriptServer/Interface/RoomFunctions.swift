// conn:join, conn:leave and conn:rooms.

import CompletionIO
import LuaRuntime

extension Interface {
  static let roomFunctions: [HostFunction] = [
    HostFunction("connection:join", "cs") { context, call in
      let call = HostCall(call!)
      Worker.of(context).withOpen(call) { worker, connection in
        call.returns(.boolean(worker.rooms.join(connection, room: call[1].text)))
      }
    },
    HostFunction("connection:leave", "cs") { context, call in
      let call = HostCall(call!)
      Worker.of(context).withOpen(call) { worker, connection in
        call.returns(.boolean(worker.rooms.leave(connection, room: call[1].text)))
      }
    },
    HostFunction("connection:rooms", "c") { context, call in
      let call = HostCall(call!)
      Worker.of(context).withOpen(call) { worker, connection in
        worker.returnTexts(call, worker.rooms.names(of: connection))
      }
    },
  ]
}

extension Worker {
  /// As `withConnection`, for what only a connection that has not ended can do.
  fileprivate func withOpen(_ call: HostCall, _ body: (Worker, UnsafeMutablePointer<Connection>) -> Void) {
    withConnection(call) { worker, connection in
      guard connection.pointee.phase == .open else { return call.fails("closed") }
      body(worker, connection)
    }
  }

  /// Returns a sequence of texts, laid out in the scratch memory: the values first, then their bytes.
  func returnTexts(_ call: HostCall, _ texts: [String]) {
    let valueBytes = texts.count * MemoryLayout<LuaValue>.stride
    let block = scratch.reserve(texts.reduce(valueBytes) { $0 + $1.utf8.count })
    let values = block.baseAddress!.bindMemory(to: LuaValue.self, capacity: max(texts.count, 1))
    var end = valueBytes
    for (index, text) in texts.enumerated() {
      let room = UnsafeMutableRawBufferPointer(rebasing: block[end..<end + text.utf8.count])
      room.copyBytes(from: text.utf8)
      (values + index).initialize(to: .bytes(UnsafeRawBufferPointer(room)))
      end += text.utf8.count
    }
    call.returns(.list(UnsafeBufferPointer(start: values, count: texts.count)))
  }
}
