// What bounds a worker's scripts: CPU time, memory, and what becomes of a handler that neither ends nor can be ended. The bounds are
// enforced in CLua; here they get their figures, and what they do is counted, logged and shown.

import CompletionIO
import Logging
import LuaRuntime

extension Worker {
  /// Sets the bounds of the configuration for the state; to be called before it runs a script.
  func guardRuns() {
    let configuration = server.configuration
    // From a quarter below the limit runs that take much get an error, at the limit all; from a quarter above it, where few come,
    // allocations are refused.
    let limit = configuration.memoryLimitBytes
    lua.setMemoryLimits(softBytes: limit - limit / 4, hardBytes: limit + limit / 4)
    unsafe lua.guardRuns(
      budgetNanoseconds: Self.nanoseconds(configuration.handlerBudgetSeconds),
      stuckLimitNanoseconds: Self.nanoseconds(configuration.stuckLimitSeconds), report: WorkerWatch.report,
      context: Unmanaged.passUnretained(watch).toOpaque())
  }

  /// After a handler has run out of memory: collects what it left, so that the next one has room.
  func recoverMemory() {
    counters.memoryErrors.set(Int(lua.memoryExhaustions))
    lua.recoverMemory()
    counters.luaBytes.set(lua.memoryBytes)
  }

  /// Sees to it that free memory goes back to the system, once what goes with a failed handler has gone: its connection, its tasks,
  /// what they hold; or with the code that a reload has replaced.
  func willRelaxMemory() {
    guard !relaxation.isDue else { return }
    relaxation.isDue = true
    _ = deadlines.schedule(at: now &+ relaxation.pauseNanoseconds, payload: DeadlinePurpose.memory.payload)
  }

  /// Gives back what a turn's work kept for the next (buffers, idle coroutines) and what the state has free, after a collection if much
  /// was in use, and looks again later if that was not much.
  func relaxMemory() {
    let begin = CompletionPort.clock()
    unsafe pool.pointee.drain()
    coroutines.drain()
    scratch.giveBack()
    server.dictionaries.collect()
    if lua.isSwollen { lua.collectGarbage() } else { lua.giveBack() }
    relaxation.hasRun(isFull: lua.isFull, nanoseconds: CompletionPort.clock() &- begin)
    counters.luaBytes.set(lua.memoryBytes)
  }

  /// CPU time for loading and for handing over, in nanoseconds.
  var loadBudgetNanoseconds: UInt64 { Self.nanoseconds(server.configuration.loadBudgetSeconds) }
}

/// When a worker gives memory back. A collection of a full state takes a tenth of a second, so they get rarer while it stays full.
struct Relaxation {
  /// Soon enough for an operator who watches the memory, and too late for what a failed handler leaves to be still in use.
  private static let pauseNanosecondsMin: UInt64 = 500_000_000
  private static let pauseNanosecondsMax: UInt64 = 64_000_000_000
  /// Of a worker's time at most one part in so many goes into this.
  private static let share: UInt64 = 16

  /// A deadline for the next time is set.
  var isDue = false
  /// From when memory should go back to when it does.
  private(set) var pauseNanoseconds = pauseNanosecondsMin

  /// Memory was given back, which took so long; `isFull` says whether much is still in use.
  mutating func hasRun(isFull: Bool, nanoseconds: UInt64) {
    isDue = false
    let usual = isFull ? 2 * pauseNanoseconds : Self.pauseNanosecondsMin
    pauseNanoseconds = min(max(usual, Self.share &* nanoseconds), Self.pauseNanosecondsMax)
  }
}

/// A handler that neither ends nor can be ended, as `status` shows it.
struct StuckRun: Sendable {
  /// "file:line" of the script; empty where it is not known.
  var place: String
  var since: UInt64
}

/// What the watchdog says of one worker. Outlives the worker's Lua state.
@safe
final class WorkerWatch: @unchecked Sendable {
  private let index: Int
  private unowned let server: ServerContext
  private let lock = ThreadLock()
  private var stuckRun: StuckRun?

  init(index: Int, server: ServerContext) {
    self.index = index
    self.server = server
  }

  /// The run that is stuck at this moment. Any thread.
  var stuck: StuckRun? { lock.withLock { stuckRun } }

  /// On the watchdog's thread.
  static let report: StuckReport = { context, event, place, elapsed in
    unsafe Unmanaged<WorkerWatch>.fromOpaque(context!)._withUnsafeGuaranteedRef {
      unsafe $0.reported(StuckEvent(event), place.map { unsafe String(cString: $0) } ?? "", elapsed)
    }
  }

  private func reported(_ event: StuckEvent, _ place: String, _ elapsed: UInt64) {
    let seconds = "\(Double(elapsed / 1_000_000) / 1000)"
    var details: Logger.Metadata = ["at": "\(place)", "seconds": "\(seconds)"]
    if !server.isScratch { details["worker"] = "\(index + 1)" }
    let who = server.isScratch ? "the trial of a script" : "a worker"
    switch event {
    case .stuck:
      lock.withLock { stuckRun = StuckRun(place: place, since: CompletionPort.clock() &- elapsed) }
      server.log.error("\(who) is stuck: a C function does not return", metadata: details)
    case .freed:
      lock.withLock { stuckRun = nil }
      server.log.warning("\(who) goes on", metadata: details)
    case .pastLimit: server.stuckPastLimit(at: place, details)
    }
  }
}
