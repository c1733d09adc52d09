// Reloading from the control thread's side: which snapshot comes next, one reload at a time, and who is told how it went.
// The work is done on a thread of its own, so that clients are accepted and operators answered meanwhile.

import CompletionIO
import Logging
import Synchronization

/// Where a snapshot comes from.
enum ReloadSource: Sendable {
  /// The files, read anew.
  case files
  /// The snapshot that was live before.
  case previous
}

/// Reloads asked for, running and done.
struct ReloadQueue {
  /// The snapshot that is live.
  var current: Snapshot?
  /// The one that was live before it, for a rollback.
  var previous: Snapshot?
  /// A reload runs.
  var isRunning = false
  /// Asked for while one runs: triggers that come together make one reload.
  var next: ReloadSource?
  /// Admin clients that wait for the running one, and for the next.
  var waiting: [HandleKey] = []
  var waitingForNext: [HandleKey] = []
  /// How the last one went.
  var last: ReloadStatus?
  var lastAt: UInt64 = 0
  /// Numbers given out so far.
  var numbers = 1
}

/// How a reload ended.
struct ReloadResult: Sendable {
  var snapshot: Snapshot?
  var problem: String?
  /// What the watcher is to watch after a failure.
  var watch: WatchSet?
}

extension ControlThread {
  /// Begins a reload, or has one follow the one that runs. `client` is told how it went.
  func reload(_ source: ReloadSource, client: HandleKey?) {
    if reloads.isRunning {
      reloads.next = source
      if let client { reloads.waitingForNext.append(client) }
      return
    }
    if case .previous = source, reloads.previous == nil {
      if let client { answer(client, AdminReply(status: 1, text: "there is no earlier generation to go back to")) }
      return
    }
    if let client { reloads.waiting.append(client) }
    reloads.isRunning = true
    reloads.numbers += 1
    let job = ReloadJob(
      control: self, number: reloads.numbers, configuration: configuration,
      earlier: { if case .previous = source { reloads.previous } else { nil } }())
    _ = Thread.start(name: "reload") { job.run() }
  }

  /// The reload that ran is over.
  func reloadEnded(_ result: ReloadResult) {
    reloads.isRunning = false
    var status = ReloadStatus()
    status.succeeded = result.problem == nil
    status.unixSeconds = Int64(LogTime.now().wallSeconds)
    reloads.lastAt = CompletionPort.clock()
    if let snapshot = result.snapshot, result.problem == nil {
      reloads.previous = reloads.current
      reloads.current = snapshot
      context.generation.store(snapshot.number, ordering: .relaxed)
      status.text = "generation \(snapshot.number) (\(snapshot.hash)) is live"
      log.info("\(status.text)")
      scheduleGrace()
    } else {
      status.text = result.problem ?? "failed"
      log.error("reload failed, generation \(context.generation.load(ordering: .relaxed)) stays: \(status.text)")
    }
    if let watch = result.watch ?? result.snapshot?.watchSet { watcher?.watcher.watch(watch) }
    reloads.last = status
    for client in reloads.waiting { answer(client, AdminReply(status: status.succeeded ? 0 : 1, text: status.text)) }
    reloads.waiting = reloads.waitingForNext
    reloads.waitingForNext = []
    beginNext()
  }

  private func beginNext() {
    guard let source = reloads.next, !leaving.isLeaving else { return }
    reloads.next = nil
    let clients = reloads.waiting
    reloads.waiting = []
    reload(source, client: nil)
    if reloads.isRunning { reloads.waiting = clients }
  }

  // MARK: The first generation

  /// A transaction for a plan whose addresses are bound.
  func transaction(_ snapshot: Snapshot, _ plan: [ListenerSettings], _ bound: BoundPlan) -> ReloadTransaction {
    ReloadTransaction(
      number: snapshot.number, snapshot: snapshot, plan: plan, listeners: bound.indexes,
      counters: bound.indexes.map { listenerCounters[$0]! }, participants: workers.count)
  }

  /// Has all workers load and switch; the first failure, or nil. Blocks: only for the first generation and the reload's thread.
  func makeLive(_ transaction: ReloadTransaction) -> String? {
    for worker in workers { worker.mailbox.post(.prepare(transaction)) }
    if let problem = transaction.waitUntilLoaded() {
      for worker in workers { worker.mailbox.post(.discard(transaction)) }
      return problem
    }
    for worker in workers { worker.mailbox.post(.commit(transaction)) }
    return transaction.waitUntilDecided()
  }

  // MARK: Older code

  private func scheduleGrace() {
    let grace = Worker.nanoseconds(configuration.reloadGraceSeconds)
    _ = deadlines.schedule(at: CompletionPort.clock() &+ grace, payload: ControlDeadline.reloadGrace.rawValue)
  }

  /// Suspended handlers of generations before the live one are ended once the grace is over. A reload within the grace
  /// has ended the older ones itself and set a deadline of its own.
  func endOlderGenerations() {
    guard CompletionPort.clock() >= reloads.lastAt &+ Worker.nanoseconds(configuration.reloadGraceSeconds) else {
      return
    }
    let number = context.generation.load(ordering: .relaxed)
    for worker in workers { worker.mailbox.post(.endOlder(than: number)) }
  }
}

/// One reload, on a thread of its own.
struct ReloadJob: Sendable {
  let control: ControlThread
  let number: Int
  let configuration: Configuration
  /// The snapshot to go back to; nil to read the files.
  let earlier: Snapshot?

  /// Reads, tries, binds, switches; then the control thread learns how it went.
  func run() {
    let result = attempt()
    control.mailbox.post(.perform { $0.reloadEnded(result) })
  }

  private func attempt() -> ReloadResult {
    let snapshot: Snapshot
    do throws(SnapshotError) {
      snapshot =
        if let earlier { earlier.renumbered(number) } else {
          try Snapshot.read(script: configuration.scriptPath, number: number)
        }
    } catch {
      return ReloadResult(problem: "\(error)", watch: error.watchSet)
    }
    do throws(ServerFailure) {
      let plan = try ScratchRun.plan(snapshot, configuration)
      let (bound, transaction) = try onControl { (control) throws(ServerFailure) in
        let bound = try control.bind(plan)
        return (bound, control.transaction(snapshot, plan, bound))
      }
      if let problem = control.makeLive(transaction) {
        try onControl { (control) throws(ServerFailure) in control.unbind(bound) }
        return ReloadResult(problem: problem, watch: snapshot.watchSet)
      }
      try onControl { (control) throws(ServerFailure) in control.activate(bound, plan) }
      return ReloadResult(snapshot: snapshot)
    } catch {
      return ReloadResult(problem: "\(error)", watch: snapshot.watchSet)
    }
  }

  /// Runs `work` on the control thread and waits for its result.
  private func onControl<Value: Sendable>(
    _ work: @escaping @Sendable (ControlThread) throws(ServerFailure) -> Value
  ) throws(ServerFailure) -> Value {
    let box = ResultBox<Value>()
    let posted = control.mailbox.post(
      .perform { control in box.set(Result { () throws(ServerFailure) in try work(control) }) })
    guard posted else { throw .script("the server is ending") }
    return try box.wait().get()
  }
}

/// A result that one thread waits for.
private final class ResultBox<Value: Sendable>: @unchecked Sendable {
  private let condition = ThreadCondition()
  private var result: Result<Value, ServerFailure>?

  func set(_ result: Result<Value, ServerFailure>) {
    condition.withLock {
      self.result = result
      condition.broadcast()
    }
  }

  func wait() -> Result<Value, ServerFailure> {
    condition.withLock {
      while true {
        if let result { return result }
        condition.wait()
      }
    }
  }
}
