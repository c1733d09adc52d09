// Timers of scripts: setting, cancelling, firing, and the next beat of a repeating one.

import CompletionIO
import LuaRuntime

extension Worker {
  /// Sets a timer of the running generation; nil at the bound.
  func setTimer(_ function: LuaReference, after seconds: Double, every: Bool) -> TimerToken? {
    let nanoseconds = Self.nanoseconds(seconds)
    let due = CompletionPort.clock() &+ nanoseconds
    guard
      let token = timers.insert(
        function, intervalNanoseconds: every ? max(nanoseconds, Self.intervalNanosecondsMin) : 0,
        codeGeneration: runningGeneration, dueAt: due)
    else { return nil }
    timers[token].deadline = deadlines.schedule(at: due, payload: DeadlinePurpose.timer(token).payload)
    return token
  }

  /// The shortest beat of a repeating timer: the port waits in milliseconds or less, and a timer must leave time for others.
  private static let intervalNanosecondsMin: UInt64 = 1_000_000

  /// How soon a timer of a generation that is not live yet is looked at again: loading takes milliseconds.
  private static let notLiveYetNanoseconds: UInt64 = 10_000_000

  /// Seconds as a script gives them; anything beyond 100 years is as good as never.
  static func nanoseconds(_ seconds: Double) -> UInt64 {
    seconds > 0 ? UInt64(min(seconds, 3.2e9) * 1e9) : 0
  }

  /// Forgets a timer; harmless when it has ended.
  func cancelTimer(_ token: TimerToken) {
    guard timers.isCurrent(token) else { return }
    _ = deadlines.cancel(timers[token].deadline)
    lua.release(timers[token].function)
    timers.remove(token)
  }

  func timerDue(_ token: TimerToken) {
    guard timers.isCurrent(token) else { return }
    timers[token].deadline = .none
    let timer = timers[token]
    if let generation, timer.codeGeneration > generation.number {
      // Set while a new generation loads: it waits for the switch, or goes with the generation if there is none.
      timers[token].deadline = deadlines.schedule(
        at: now + Self.notLiveYetNanoseconds, payload: DeadlinePurpose.timer(token).payload)
      return
    }
    timers[token].isRunning = true
    let owner = TaskOwner(
      kind: .timer, connection: .none, codeGeneration: timer.codeGeneration, timer: token)
    start(timer.function, LuaArguments(), owner)
  }

  /// The timer's function is done: it ends, or its next beat is set. Beats missed meanwhile are skipped, so that it neither
  /// overlaps itself nor drifts.
  func timerFinished(_ token: TimerToken) {
    guard timers.isCurrent(token), timers[token].isRunning else { return }
    let interval = timers[token].intervalNanoseconds
    if interval == 0 { return cancelTimer(token) }
    var next = timers[token].dueAt &+ interval
    if next <= now { next &+= (now - next) / interval * interval &+ interval }
    timers[token].isRunning = false
    timers[token].dueAt = next
    timers[token].deadline = deadlines.schedule(at: next, payload: DeadlinePurpose.timer(token).payload)
  }
}
