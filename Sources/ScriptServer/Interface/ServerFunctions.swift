// What reaches beyond one connection: broadcast, and send, write and close by id on any worker, and count.

import CompletionIO
import LuaRuntime
import Synchronization

extension Interface {
  static let serverFunctions: [HostFunction] = [
    HostFunction("broadcast", "ss?a?") { context, call in
      let call = HostCall(call!)
      let except = (call[2].asConnection ?? call[2].asInteger).map { ConnectionID(rawValue: $0) }
      Worker.of(context).broadcast(call[0].asBytes!, room: call[1].isNil ? nil : call[1].text, except: except)
    },
    HostFunction("send", "as") { Worker.of($0).sendById(HostCall($1!), framed: true) },
    HostFunction("write", "as") { Worker.of($0).sendById(HostCall($1!), framed: false) },
    HostFunction("close", "as?") { Worker.of($0).closeById(HostCall($1!)) },
    HostFunction("count", "s?") { context, call in
      let call = HostCall(call!)
      let server = Worker.of(context).server
      let count =
        call[0].isNil
        ? server.workers.reduce(0) { $0 + $1.counters.connections.load(ordering: .relaxed) }
        : server.rooms.count(call[0].text)
      call.returns(.integer(Int64(count)))
    },
    HostFunction("worker_id", "") { HostCall($1!).returns(.integer(Int64(Worker.of($0).index + 1))) },
    HostFunction("worker_count", "") {
      HostCall($1!).returns(.integer(Int64(max(Worker.of($0).server.workerCount, 1))))
    },
  ]
}

extension Worker {
  /// The connection that a script names by id or object; nil for anything else, which is raised.
  private func target(_ call: HostCall) -> ConnectionID? {
    guard let id = call[0].asInteger ?? call[0].asConnection else {
      call.raisesTypeError(argument: 1, expected: "connection id")
      return nil
    }
    return ConnectionID(rawValue: id)
  }

  fileprivate func sendById(_ call: HostCall, framed: Bool) {
    guard let id = target(call), let bytes = call[1].asBytes else { return }
    if id.workerIndex == index || id.workerIndex >= server.workers.count {
      guard id.workerIndex == index, let connection = table.find(id.key) else { return call.fails("closed") }
      return report(framed ? send(connection, bytes) : write(connection, bytes), call)
    }
    let message = WorkerMessage.send(id, SharedBytes(copying: bytes), framed: framed)
    if server.workers[id.workerIndex].mailbox.postDroppable(message, bytes: bytes.count) {
      call.returns(.boolean(true))
    } else {
      counters.dropped.add(1)
      call.fails("overflow")
    }
  }

  fileprivate func closeById(_ call: HostCall) {
    guard let id = target(call) else { return }
    let reason = call[1].isNil ? "script" : call[1].text
    if id.workerIndex == index || id.workerIndex >= server.workers.count {
      guard id.workerIndex == index, let connection = table.find(id.key), connection.pointee.isUsable else {
        return call.fails("closed")
      }
      close(connection, .script(reason))
    } else {
      server.workers[id.workerIndex].mailbox.post(.close(id, reason: reason))
    }
    call.returns(.boolean(true))
  }
}
