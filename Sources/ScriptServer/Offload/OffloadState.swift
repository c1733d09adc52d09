// The Lua state of one background thread for one generation. It is a worker's state without what a worker does: the same functions
// and the same `require`, but no clients, no turns, and a `moonport` in which whatever needs a worker raises (Offload.lua).

import LuaRuntime

/// A state in which offloaded functions run. Owned by its thread.
final class OffloadState {
  private let host: Worker
  private let number: Int

  /// A state for the modules of `snapshot`; throws what the system refused.
  init(_ snapshot: Snapshot, _ context: ServerContext) throws {
    host = try Worker(index: 0, server: context)
    host.snapshots[snapshot.number] = snapshot
    number = snapshot.number
    unguard()
  }

  /// Its runs may take as long as they like.
  private func unguard() { unsafe host.lua.guardRuns(budgetNanoseconds: 0) }

  /// Ends the call that runs, or the next one, unless it is stuck in a C function. For any thread, as long as the state is open.
  func endCall() { host.lua.endRuns() }

  /// After a call: has the next one run, though this one may have been ended.
  func callIsOver() { unguard() }

  /// Makes the call that a job asks for, however long it takes.
  func run(_ job: OffloadJob) -> WaitAnswer {
    host.offloadResult = nil
    let problem = unsafe job.module.withUnsafeBytes { module in
      unsafe job.arguments.withValue { arguments in
        var given = unsafe LuaArguments(.integer(Int64(number)), .bytes(module))
        unsafe given.append(arguments)
        return host.lua.call(host.prelude.offload, given) { outcome -> String? in
          if let failure = outcome.failure { return failure.message }
          return unsafe outcome[0].isNil ? nil : outcome[0].text
        }
      }
    }
    if let problem { return .failsWith(problem) }
    guard let results = host.offloadResult else { return .failsWith("the offloaded function's results are lost") }
    host.offloadResult = nil
    return .plain(results)
  }

  /// Frees what the last call has left behind.
  func collectGarbage() { host.lua.collectGarbage() }

  /// Ends the state.
  func close() { host.lua.close() }
}
