// What reaches beyond one connection: broadcast, and send, write and close by id on any worker, and count.

import CompletionIO
import LuaRuntime
import Synchronization

extension Interface {
  static let serverFunctions: [HostFunction] = unsafe [
    HostFunction("broadcast", "ss?a?") { context, call in
      let call = unsafe HostCall(call!)
      let except = unsafe (call[2].asConnection ?? call[2].asInteger).map { ConnectionID(rawValue: $0) }
      let worker = unsafe Worker.of(context)
      var room: RoomName?
      if let bytes = unsafe call[1].asBytes { unsafe room = worker.recentRoomNames.name(bytes) }
      let message = unsafe call[0].asBytes!
      if worker.isAheadOfLive {
        _ = unsafe worker.sayLater(.broadcast(Array(message), room: room, except: except), bytes: message.count)
      } else {
        unsafe worker.broadcast(message, room: room, except: except)
      }
    },
    unsafe HostFunction("send", "ds") { unsafe Worker.of($0).sendById(HostCall($1!), framed: true) },
    unsafe HostFunction("write", "ds") { unsafe Worker.of($0).sendById(HostCall($1!), framed: false) },
    unsafe HostFunction("close", "ds?") { unsafe Worker.of($0).closeById(HostCall($1!)) },
    unsafe HostFunction("count", "s?") { context, call in
      let call = unsafe HostCall(call!)
      let server = unsafe Worker.of(context).server
      let count =
        unsafe call[0].asBytes.map { unsafe server.rooms.count(RoomName($0)) }
        ?? server.workers.reduce(0) { $0 + $1.counters.connections.load(ordering: .relaxed) }
      unsafe call.returns(.integer(Int64(count)))
    },
    unsafe HostFunction("worker_id", "") { unsafe HostCall($1!).returns(.integer(Int64(Worker.of($0).index + 1))) },
    unsafe HostFunction("worker_count", "") {
      unsafe HostCall($1!).returns(.integer(Int64(max(Worker.of($0).server.workerCount, 1))))
    },
  ]
}

extension Worker {
  /// The connection that a script names by id or object.
  private func target(_ call: HostCall) -> ConnectionID {
    ConnectionID(rawValue: unsafe call[0].asInteger ?? call[0].asConnection ?? 0)
  }

  fileprivate func sendById(_ call: HostCall, framed: Bool) {
    guard let bytes = unsafe call[1].asBytes else { return }
    if isAheadOfLive {
      return unsafe report(sayLater(.send(target(call), Array(bytes), framed: framed), bytes: bytes.count), call)
    }
    unsafe report(send(bytes, to: target(call), framed: framed), call)
  }

  fileprivate func closeById(_ call: HostCall) {
    let id = target(call)
    let reason = unsafe call[1].isNil ? "script" : call[1].text
    let result =
      isAheadOfLive ? sayLater(.close(id, reason: reason), bytes: reason.utf8.count) : close(id, reason: reason)
    report(result, call)
  }

  /// Closes a connection of any worker. One of another worker is closed once the order has come there.
  func close(_ id: ConnectionID, reason: String) -> SendResult {
    if id.workerIndex == index { spreadBeforeUse(of: id.key) }
    if id.workerIndex == index || !server.workers.indices.contains(id.workerIndex) {
      guard id.workerIndex == index, let connection = unsafe table.find(id.key), unsafe connection.pointee.isUsable
      else {
        return .closed
      }
      unsafe close(connection, .script(reason))
      return .queued
    }
    postGathered()
    let mailbox = server.workers[id.workerIndex].mailbox
    if mailbox.postDroppable(.close(id, reason: reason), bytes: reason.utf8.count) { return .queued }
    counters.dropped.add(1)
    return .overflow
  }
}
