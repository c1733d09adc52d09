// moonport.publish, and the natives below moonport.subscribe.

import LuaRuntime

extension Interface {
  static let channelFunctions: [HostFunction] = unsafe [
    HostFunction("publish", "sp*") { context, call in
      let call = unsafe HostCall(call!)
      if unsafe Worker.of(context).publish(ChannelName(call[0].asBytes!), call[1]) {
        unsafe call.returns(.boolean(true))
      } else {
        call.fails("overflow")
      }
    },
    unsafe HostFunction("subscribe", "isf") { unsafe Worker.of($0).subscribe(HostCall($1!)) },
    unsafe HostFunction("cancel_subscription", "i") { context, call in
      let call = unsafe HostCall(call!)
      let token = unsafe SubscriptionToken(rawValue: call[0].asInteger ?? 0)
      unsafe call.returns(.boolean(Worker.of(context).cancelSubscription(token)))
    },
  ]
}

extension Worker {
  /// native.subscribe(generation, channel, f): the subscription's number.
  fileprivate func subscribe(_ call: HostCall) {
    guard let function = unsafe call[2].asReference else { return }
    let codeGeneration = unsafe Int(call[0].asInteger ?? 0)
    if refusesSubscription(of: codeGeneration) {
      lua.release(function)
      return call.fails("reloaded")
    }
    let channel = unsafe ChannelName(call[1].asBytes!)
    guard let token = subscriptions.insert(channel, function, codeGeneration: codeGeneration) else {
      lua.release(function)
      return call.fails("too many subscriptions")
    }
    counters.subscriptions.set(subscriptions.count)
    unsafe call.returns(.integer(token.rawValue))
  }
}
