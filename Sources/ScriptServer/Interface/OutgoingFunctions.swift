// moonport.resolve and moonport.pipe, and the natives below moonport.connect.

import CompletionIO
import LuaRuntime

extension Interface {
  static let outgoingFunctions: [HostFunction] = unsafe [
    HostFunction("resolve", "sn?", waits: true) { unsafe Worker.of($0).resolveFromScript(HostCall($1!)) },
    unsafe HostFunction("begin_connect", "sins?f?f?f?f?f?", waits: true) {
      unsafe Worker.of($0).connectFromScript(HostCall($1!))
    },
    unsafe HostFunction("connect", "s", waits: true) { context, call in
      let call = unsafe HostCall(call!)
      do throws(ConnectTargetError) {
        _ = try unsafe ConnectTarget(parsing: call[0].text)
      } catch {
        unsafe Worker.of(context).returnText(call, "\(error)")
      }
    },
    unsafe HostFunction("named_handlers", "sf?f?f?f?f?") { unsafe Worker.of($0).enterNamedHandlers(HostCall($1!)) },
    unsafe HostFunction("pipe", "cc", waits: true) { unsafe Worker.of($0).pipeFromScript(HostCall($1!)) },
  ]
}

extension Worker {
  /// How long `resolve` waits if it is not told: the system's resolver asks two servers twice in that time.
  private static let resolveSeconds = 30.0

  fileprivate func resolveFromScript(_ call: HostCall) {
    let seconds = unsafe call[1].asNumber ?? Self.resolveSeconds
    guard seconds >= 0 else { return raise(call, "resolve: the timeout must be at least 0 seconds, not \(seconds)") }
    let name = unsafe call[0].text
    if let address = SocketAddress(host: name, port: 0) { return returnTexts(call, [Array(address.host.utf8)]) }
    let until = CompletionPort.clock() &+ Self.nanoseconds(seconds)
    guard let ticket = wait(call, for: .elsewhere, until: until) else { return }
    if !server.resolver.lookUp(name, for: .task(ticket), until: until, answerTo: mailbox) {
      fail(ticket, "busy")
    }
  }

  /// native.begin_connect(address, codec, seconds, name, on_open, on_message, on_drain, on_close, on_error)
  fileprivate func connectFromScript(_ call: HostCall) {
    let codec = unsafe UInt16(truncatingIfNeeded: call[1].asInteger ?? 0)
    let handlers = takeHandlers(call)
    let giveBack = { [self] in
      codecs.release(codec, lua: lua)
      outgoing.release(handlers, lua: lua)
    }
    let target: ConnectTarget
    do throws(ConnectTargetError) {
      target = try unsafe ConnectTarget(parsing: call[0].text)
    } catch {
      giveBack()
      return raise(call, "connect: \(error)")
    }
    let until = unsafe CompletionPort.clock() &+ Self.nanoseconds(call[2].asNumber ?? 0)
    guard let ticket = wait(call, for: .elsewhere, until: until) else { return giveBack() }
    let port: UInt16 = if case .name(_, let port) = target { port } else { 0 }
    let number = beginConnect(
      target,
      PendingConnect(
        ticket: ticket, until: until, port: port, codec: codec, handlers: handlers))
    tasks[ticket.token].wait = .answer(.connect(number))
  }

  /// The handlers of a connect: those of a table that the script returns, in the live generation's code, or the script's own.
  private func takeHandlers(_ call: HostCall) -> Int32 {
    let functions = (4..<9).compactMap { unsafe call[$0].asReference }
    if unsafe !call[3].isNil {
      let name = unsafe call[3].text
      if let handlers = generation?.namedHandlers[name] {
        for function in functions { lua.release(function) }
        if let known = outgoing.retain(named: name) { return known }
        return outgoing.insert(OutgoingHandlers(handlers: handlers, codeGeneration: generationNumber, name: name))
      }
    }
    if functions.isEmpty { return OutgoingHandlersTable.none }
    return outgoing.insert(
      OutgoingHandlers(
        handlers: HandlerSet { unsafe $0 < 5 ? call[$0 + 4].asReference : nil },
        codeGeneration: running?.owner.codeGeneration ?? generationNumber, ownsReferences: true))
  }

  /// native.named_handlers(name, on_open, on_message, on_drain, on_close, on_error): a table within the one that the script
  /// returns, which outgoing connections may use.
  fileprivate func enterNamedHandlers(_ call: HostCall) {
    let handlers = HandlerSet { unsafe $0 < 5 ? call[$0 + 1].asReference : nil }
    guard let candidate else {
      for reference in handlers.references { lua.release(reference) }
      return call.fails("only while a script loads")
    }
    candidate.references += handlers.references
    unsafe candidate.namedHandlers[call[0].text] = handlers
  }
}
