// moonport.offload on a worker, and the native by which a background thread hands results over.

import LuaRuntime

extension Interface {
  static let offloadFunctions: [HostFunction] = unsafe [
    HostFunction("offload", "sp*", waits: true) { unsafe Worker.of($0).offload(HostCall($1!)) },
    unsafe HostFunction("offload_result", "r*") { context, call in
      unsafe Worker.of(context).offloadResult = PlainData(HostCall(call!)[0])
    },
  ]
}

extension Worker {
  fileprivate func offload(_ call: HostCall) {
    guard let module = unsafe call[0].asBytes, let arguments = unsafe PlainData(call[1]) else { return }
    guard let pool = server.offload else { return call.fails("busy") }
    guard let running, let snapshot = snapshots[running.owner.codeGeneration] else { return call.fails("reloaded") }
    guard let caller = wait(call, for: .elsewhere) else { return }
    let job = unsafe OffloadJob(
      snapshot: snapshot, module: Array(module), arguments: arguments, caller: caller, mailbox: mailbox)
    if pool.submit(job) {
      tasks[caller.token].wait = .answer(.offload(job))
    } else {
      fail(caller, "busy")
    }
  }
}
