// The natives below moonport.spawn and the methods of a task, whose object and results are the prelude's.

import CompletionIO
import LuaRuntime

extension Interface {
  static let taskFunctions: [HostFunction] = unsafe [
    HostFunction("spawn", "f") { context, call in
      let worker = unsafe Worker.of(context)
      let call = unsafe HostCall(call!)
      guard let run = unsafe call[0].asReference else { return }
      guard let token = worker.spawn(run) else {
        worker.lua.release(run)
        return call.fails("too many tasks")
      }
      unsafe call.returns(.integer(token.rawValue))
    },
    unsafe HostFunction("task:wait", "in?", waits: true) { context, call in
      let worker = unsafe Worker.of(context)
      let call = unsafe HostCall(call!)
      let token = unsafe SpawnToken(rawValue: call[0].asInteger ?? 0)
      guard worker.spawned.isCurrent(token) else { return unsafe call.returns(.boolean(true)) }
      if worker.running?.owner.spawned == token { return unsafe call.raises(.text("a task cannot wait for itself")) }
      let until = unsafe call[1].asNumber.map { CompletionPort.clock() &+ Worker.nanoseconds($0) }
      if let ticket = worker.wait(call, for: .elsewhere, until: until) { worker.enterWaiter(ticket, of: token) }
    },
    unsafe HostFunction("cancel_task", "i") { context, call in
      let worker = unsafe Worker.of(context)
      let call = unsafe HostCall(call!)
      let done = unsafe worker.cancelSpawned(SpawnToken(rawValue: call[0].asInteger ?? 0))
      unsafe call.returns(.boolean(done != .nothing), .boolean(done == .forgotten))
    },
    unsafe HostFunction("task_ending", "") { context, call in
      let worker = unsafe Worker.of(context)
      guard let token = worker.running?.token, token != .none, worker.tasks[token].ending != .none else { return }
      unsafe HostCall(call!).returns(.text(worker.tasks[token].ending.text))
    },
    unsafe HostFunction("task_failed", "s") { context, call in
      let worker = unsafe Worker.of(context)
      guard let running = worker.running else { return }
      if unsafe worker.endsQuietly(running, HostCall(call!)[0].text) { return }
      worker.reportSpawned(running.owner.spawned, unsafe HostCall(call!)[0].text)
    },
  ]
}

extension Worker {
  /// Has `ticket` told when a task ends.
  fileprivate func enterWaiter(_ ticket: WaitTicket, of token: SpawnToken) {
    if spawned[token].waiters.count >= spawned[token].waitersKeptMax {
      let waiters = spawned[token].waiters.filter(isWaiting)
      spawned[token].waiters = waiters
      spawned[token].waitersKeptMax = max(16, waiters.count * 2)
    }
    spawned[token].waiters.append(ticket)
  }
}
