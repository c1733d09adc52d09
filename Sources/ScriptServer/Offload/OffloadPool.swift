// The background threads of moonport.offload: a bounded queue of calls, threads that are started when there is work for one more, and
// what they need to know of generations that are over. What a call does with Lua is OffloadState's.

import CompletionIO
import Logging
import LuaRuntime

/// What `status` shows of the pool.
package struct OffloadStatus: Sendable, Equatable {
  /// Threads that have been started, and that may be.
  package var threads = 0
  package var threadsMax = 0
  /// Calls that run, and that wait for a thread.
  package var running = 0
  package var waiting = 0
  /// Calls that have ended, in whatever way.
  package var finished: Int64 = 0
  /// Calls that were refused as "busy".
  package var refused: Int64 = 0

  package init() {}
}

/// A call that a thread has taken. Under the pool's lock.
private final class OffloadRun {
  let job: OffloadJob
  /// Where it runs, once it does.
  private(set) var state: OffloadState?
  private var isEnded = false

  init(_ job: OffloadJob) { self.job = job }

  /// It is about to run; false when it is not to any more.
  func begin(_ state: OffloadState) -> Bool {
    self.state = state
    return !isEnded
  }

  /// Ends it, or has it never begin.
  func end() {
    isEnded = true
    state?.endCall()
  }
}

/// The pool. Safe to use from every thread; each field is guarded by the condition's lock.
final class OffloadPool: @unchecked Sendable {
  private let condition = ThreadCondition()
  /// What the threads' states take for their server.
  private let context: ServerContext
  private let log: Logger
  private let startThread: ThreadStart
  private var queue: [OffloadJob] = []
  private var queueBytes = 0
  private var status = OffloadStatus()
  private var idle = 0
  /// The calls that threads have taken.
  private var runs: [OffloadRun] = []
  /// Generations before this number are over: nothing of them is kept.
  private var oldest = 0
  private var isEnding = false

  /// Calls that may wait for a thread: at a millisecond each a second's work for one, and beyond it whoever waits had better be told.
  static let jobsMax = 1024
  /// Bytes of arguments that may wait, in all calls together: a dozen of the largest.
  static let queueBytesMax = 256 << 20
  /// How long the end of the server waits for calls that run: ending one takes milliseconds, unless it is stuck.
  private static let endNanoseconds: UInt64 = 1_000_000_000

  /// Starts a named thread; false where the system gives none.
  typealias ThreadStart = @Sendable (String, sending @escaping () -> Void) -> Bool

  /// A pool that has no threads yet. Its functions use the server's `dictionaries`; `control` learns of modules that are asked
  /// for late. A thread is dropped as soon as it runs: one whose call does not end must not hold up the server's end.
  init(
    _ configuration: Configuration, log: Logger, dictionaries: SharedDirectory, control: Mailbox<ControlMessage>,
    startThread: @escaping ThreadStart = { Thread.startIfPossible(name: $0, $1) != nil }
  ) {
    self.log = log
    self.startThread = startThread
    context = ServerContext(configuration, log: log, isScratch: false, dictionaries: dictionaries)
    context.begin(workers: [], control: control)
    status.threadsMax = configuration.offloadThreads
  }

  // MARK: Callers

  /// Queues a call; false at the bound, or when there is no thread and none to be had.
  func submit(_ job: OffloadJob) -> Bool {
    condition.withLock {
      let fits = !isEnding && queue.count < Self.jobsMax && queueBytes + job.waitingBytes <= Self.queueBytesMax
      if fits, idle <= queue.count, status.threads < status.threadsMax { addThread() }
      // Without a thread, which the system may refuse, it would wait for ever.
      guard fits, status.threads > 0 else {
        status.refused += 1
        return false
      }
      queue.append(job)
      queueBytes += job.waitingBytes
      condition.broadcast()
      return true
    }
  }

  /// Nobody waits for a call any more: one that has not begun never does, one that runs is ended.
  func abandon(_ job: OffloadJob) {
    condition.withLock {
      if let run = runs.first(where: { $0.job === job }) { return run.end() }
      guard let place = queue.firstIndex(where: { $0 === job }) else { return }
      queueBytes -= job.waitingBytes
      queue.remove(at: place)
    }
  }

  /// Generations before `number` are over: their states are closed.
  func retire(olderThan number: Int) {
    condition.withLock {
      oldest = max(oldest, number)
      condition.broadcast()
    }
  }

  /// How it does.
  var currentStatus: OffloadStatus {
    condition.withLock {
      var current = status
      current.waiting = queue.count
      return current
    }
  }

  /// Ends the threads and the calls that run, but for those that are stuck in a C function.
  func end() {
    let stillRunning = condition.withLock {
      isEnding = true
      queue = []
      for run in runs { run.end() }
      condition.broadcast()
      let deadline = CompletionPort.clock() + Self.endNanoseconds
      while status.threads > 0, condition.wait(untilNanoseconds: deadline) {}
      return status.running
    }
    if stillRunning > 0 {
      log.notice(
        "offloaded functions are stuck in C functions and end with the process",
        metadata: ["functions": "\(stillRunning)"])
    }
  }

  // MARK: Threads

  /// Under the lock.
  private func addThread() {
    if startThread("offload \(status.threads + 1)", { self.work() }) { status.threads += 1 }
  }

  /// What a thread has to do next.
  private enum Next {
    case run(OffloadRun)
    case close([Int])
    case end
  }

  private func work() {
    var states: [Int: OffloadState] = [:]
    while true {
      switch next(states) {
      case .run(let run):
        run.job.answer(answer(run, &states))
        // Between calls nobody waits for the collector.
        if hasFinished(run) { run.state?.collectGarbage() }
      case .close(let numbers):
        for number in numbers { states.removeValue(forKey: number)?.close() }
      case .end:
        for state in states.values { state.close() }
        hasEnded()
        return
      }
    }
  }

  private func answer(_ run: OffloadRun, _ states: inout [Int: OffloadState]) -> WaitAnswer {
    let number = run.job.snapshot.number
    let state: OffloadState
    do {
      state = try states[number] ?? OffloadState(run.job.snapshot, context)
    } catch {
      return .failsWith("no Lua state for an offloaded function: \(error)")
    }
    states[number] = state
    guard condition.withLock({ run.begin(state) }) else { return .fails("cancelled") }
    defer {
      condition.withLock { runs.removeAll { $0 === run } }
      state.callIsOver()
    }
    return state.run(run.job)
  }

  private func next(_ states: [Int: OffloadState]) -> Next {
    condition.withLock {
      while true {
        if isEnding { return .end }
        let over = states.keys.filter { $0 < oldest }
        if !over.isEmpty { return .close(over) }
        if !queue.isEmpty {
          let job = queue.removeFirst()
          queueBytes -= job.waitingBytes
          status.running += 1
          let run = OffloadRun(job)
          runs.append(run)
          return .run(run)
        }
        idle += 1
        condition.wait()
        idle -= 1
      }
    }
  }

  /// A call is over; true when no other waits.
  private func hasFinished(_ run: OffloadRun) -> Bool {
    condition.withLock {
      runs.removeAll { $0 === run }
      status.running -= 1
      status.finished += 1
      return queue.isEmpty
    }
  }

  private func hasEnded() {
    condition.withLock {
      status.threads -= 1
      condition.broadcast()
    }
  }
}
