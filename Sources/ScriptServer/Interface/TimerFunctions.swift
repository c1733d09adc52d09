// moonport.sleep, and the natives below moonport.after and moonport.every.

import CompletionIO
import LuaRuntime

extension Interface {
  static let timerFunctions: [HostFunction] = [
    HostFunction("sleep", "n", waits: true) { context, call in
      let worker = Worker.of(context)
      let call = HostCall(call!)
      if worker.runningIsEnding { return call.raises(.text("reloaded")) }
      let until = CompletionPort.clock() &+ Worker.nanoseconds(call[0].asNumber ?? 0)
      if worker.tokenToWait(.sleep, until: until) == nil {
        return call.raises(.text("too many suspended tasks on this worker"))
      }
      call.waits()
    },
    HostFunction("timer", "nbf") { context, call in
      let worker = Worker.of(context)
      let call = HostCall(call!)
      guard let function = call[2].asReference else { return }
      let token = worker.setTimer(function, after: call[0].asNumber ?? 0, every: call[1].asBoolean ?? false)
      guard let token else {
        worker.lua.release(function)
        return call.fails("too many timers")
      }
      call.returns(.integer(token.rawValue))
    },
    HostFunction("cancel_timer", "i") { context, call in
      let worker = Worker.of(context)
      let call = HostCall(call!)
      let token = TimerToken(rawValue: call[0].asInteger ?? 0)
      call.returns(.boolean(worker.timers.isCurrent(token)))
      worker.cancelTimer(token)
    },
  ]
}
