// The tasks of moonport.spawn: starting them, one after the other and never inside a handler, cancelling them, and telling those who
// wait for one that it has ended. The results themselves pass by: the prelude puts them into the script's object.

import CompletionIO
import Logging
import LuaRuntime

extension Worker {
  /// Tasks started in one turn: those behind them leave sockets and timers a chance first.
  private static let startsPerTurnMax = 256

  /// Enters a task of the running code; nil at the bound.
  func spawn(_ run: LuaReference) -> SpawnToken? {
    let number = runningGeneration
    return spawned.insert(run, codeGeneration: number, isHeld: number > generation?.number ?? 0)
  }

  /// Starts the tasks that were spawned; what these spawn has its turn next.
  func startSpawned() {
    guard spawned.hasQueued else { return }
    var share = TurnShare(atMost: Self.startsPerTurnMax)
    while !share.isUsedUp, let token = spawned.takeQueued() {
      spawned[token].isRunning = true
      let owner = TaskOwner(
        kind: .spawned, connection: .none, codeGeneration: spawned[token].codeGeneration, spawned: token)
      start(spawned[token].run, LuaArguments(), owner)
      settle()
      share.spend()
    }
  }

  // MARK: Its end

  /// A task's function is done, or was ended: whoever waits for it is told.
  func spawnedFinished(_ token: SpawnToken) {
    guard spawned.isCurrent(token) else { return }
    for ticket in spawned[token].waiters where isWaiting(ticket) { due.append(.answer(ticket, .done)) }
    lua.release(spawned[token].run)
    spawned.remove(token)
  }

  /// A task was ended before its function could say how it went.
  func spawnedFailed(_ task: RunningTask, _ message: String) {
    guard spawned.isCurrent(task.owner.spawned) else { return }
    let isCancelled = task.token != .none && tasks[task.token].ending == .cancelled
    if !isCancelled { reportSpawned(task.owner.spawned, message) }
    tell(task.owner.spawned, isCancelled ? "cancelled" : message)
  }

  /// Puts an error in the log for which nobody waits.
  func reportSpawned(_ token: SpawnToken, _ message: String) {
    if spawned.isCurrent(token), spawned[token].waiters.contains(where: isWaiting) { return }
    counters.errors.add(1)
    log.error("\(message)")
  }

  /// Tells the script's object how its task has ended.
  private func tell(_ token: SpawnToken, _ ending: String) {
    var ending = ending
    ending.withUTF8 { bytes in
      unsafe lua.call(spawned[token].run, LuaArguments(.bytes(UnsafeRawBufferPointer(bytes)))) { _ in }
    }
  }

  /// Ends tasks that have not started.
  func forgetSpawned(_ ending: String, where condition: (SpawnedTask) -> Bool) {
    for token in spawned.unstarted(where: condition) {
      tell(token, ending)
      spawnedFinished(token)
    }
  }

  // MARK: Cancelling

  /// What `cancel` of a task has done.
  enum Cancelling {
    /// It had ended, or was ending already.
    case nothing
    /// It will never run.
    case forgotten
    /// It ends: its present or next wait raises.
    case ending
  }

  /// Ends a task: one that waits goes on with an error once the running handler is done.
  func cancelSpawned(_ token: SpawnToken) -> Cancelling {
    guard spawned.isCurrent(token) else { return .nothing }
    if !spawned[token].isRunning {
      spawnedFinished(token)
      return .forgotten
    }
    let isRunningNow = running?.owner.spawned == token
    // Without a token it has no wait that could raise, and at the bound it gets none.
    guard let task = isRunningNow ? enterRunning() : spawned[token].task else { return .nothing }
    guard tasks.isCurrent(task), tasks[task].ending == .none else { return .nothing }
    tasks[task].ending = .cancelled
    if !isRunningNow {
      endWait(task)
      due.append(.end(task))
    }
    return .ending
  }
}
