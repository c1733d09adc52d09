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

/// A reload that is to come, or runs.
struct ReloadRequest {
  let source: ReloadSource
  /// Admin clients that are told how it went.
  var clients: [HandleKey] = []
}

/// Reloads asked for, running and done.
struct ReloadQueue {
  /// The snapshot that is live.
  var current: Snapshot?
  /// The one that was live before it, for a rollback.
  var previous: Snapshot?
  /// The one that runs.
  var running: ReloadRequest?
  /// Those asked for while one runs: triggers for the same that come together make one.
  var waiting: [ReloadRequest] = []
  /// How the last one went.
  var last: ReloadStatus?
  var lastAt: UInt64 = 0
  /// When the live generation became that.
  var liveAt: UInt64 = 0
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
    if reloads.waiting.last?.source != source { reloads.waiting.append(ReloadRequest(source: source)) }
    if let client { reloads.waiting[reloads.waiting.count - 1].clients.append(client) }
    beginNextReload()
  }

  /// Begins what was asked for first, unless one runs.
  private func beginNextReload() {
    while reloads.running == nil, !reloads.waiting.isEmpty {
      let request = reloads.waiting.removeFirst()
      if leaving.isLeaving {
        refuse(request, "the server is ending")
      } else if request.source == .previous, reloads.previous == nil {
        refuse(request, "there is no earlier generation to go back to")
      } else {
        begin(request)
      }
    }
  }

  private func begin(_ request: ReloadRequest) {
    reloads.running = request
    reloads.numbers += 1
    let job = ReloadJob(
      control: self, number: reloads.numbers, configuration: configuration,
      earlier: request.source == .previous ? reloads.previous : nil)
    if Thread.startIfPossible(name: "reload", { job.run() }) == nil {
      reloads.running = nil
      refuse(request, "the system has no room for another thread: the reload was not begun")
      log.error("a reload was not begun: the system has no room for another thread")
    }
  }

  /// The server has ended: whoever waits for a reload is told.
  func refuseReloads() {
    for request in [reloads.running].compactMap(\.self) + reloads.waiting { refuse(request, "the server is ending") }
  }

  private func refuse(_ request: ReloadRequest, _ reason: String) {
    for client in request.clients { answer(client, AdminReply(status: 1, text: reason)) }
  }

  /// The reload that ran is over.
  func reloadEnded(_ result: ReloadResult) {
    var status = ReloadStatus()
    status.succeeded = result.problem == nil
    status.unixSeconds = Int64(LogTime.now().wallSeconds)
    reloads.lastAt = CompletionPort.clock()
    if let snapshot = result.snapshot, result.problem == nil {
      reloads.previous = reloads.current
      reloads.current = snapshot
      reloads.liveAt = reloads.lastAt
      // Suspended handlers of the previous generation may still offload.
      context.offload?.retire(olderThan: reloads.previous?.number ?? snapshot.number)
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
    let clients = reloads.running?.clients ?? []
    reloads.running = nil
    for client in clients { answer(client, AdminReply(status: status.succeeded ? 0 : 1, text: status.text)) }
    beginNextReload()
  }

  // MARK: The first generation

  /// A transaction for a plan whose addresses are bound.
  func transaction(_ snapshot: Snapshot, _ plan: [ListenerSettings], _ bound: BoundPlan) -> ReloadTransaction {
    ReloadTransaction(
      number: snapshot.number, snapshot: snapshot, plan: plan, listeners: bound.indexes,
      counters: bound.indexes.map { listenerCounters[$0]! },
      loadBudgetNanoseconds: Worker.nanoseconds(configuration.loadBudgetSeconds), participants: workers.count)
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
    guard CompletionPort.clock() >= reloads.liveAt &+ Worker.nanoseconds(configuration.reloadGraceSeconds) else {
      return
    }
    let number = context.generation.load(ordering: .relaxed)
    for worker in workers { worker.mailbox.post(.endOlder(than: number)) }
    context.offload?.retire(olderThan: number)
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
