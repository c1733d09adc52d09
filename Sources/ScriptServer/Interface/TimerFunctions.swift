// moonport.sleep, and the natives below moonport.after and moonport.every.

import CompletionIO
import LuaRuntime

extension Interface {
  static let timerFunctions: [HostFunction] = unsafe [
    HostFunction("sleep", "n", waits: true) { context, call in
      let worker = unsafe Worker.of(context)
      let call = unsafe HostCall(call!)
      if worker.refuseWaitIfEnding(call) { return }
      let until = unsafe CompletionPort.clock() &+ Worker.nanoseconds(call[0].asNumber ?? 0)
      if worker.tokenToWait(.sleep, until: until) == nil {
        return unsafe call.raises(.text("too many suspended tasks on this worker"))
      }
      call.waits()
    },
    unsafe HostFunction("timer", "nbf") { context, call in
      let worker = unsafe Worker.of(context)
      let call = unsafe HostCall(call!)
      guard let function = unsafe call[2].asReference else { return }
      let token = unsafe worker.setTimer(function, after: call[0].asNumber ?? 0, every: call[1].asBoolean ?? false)
      guard let token else {
        worker.lua.release(function)
        return call.fails("too many timers")
      }
      unsafe call.returns(.integer(token.rawValue))
    },
    unsafe HostFunction("cancel_timer", "i") { context, call in
      let worker = unsafe Worker.of(context)
      let call = unsafe HostCall(call!)
      let token = unsafe TimerToken(rawValue: call[0].asInteger ?? 0)
      unsafe call.returns(.boolean(worker.timers.isCurrent(token)))
      worker.cancelTimer(token)
    },
  ]
}
