// The control thread: the process's first. It accepts clients and places them, serves the admin socket, hears signals and file
// changes, and begins and ends everything. It never runs a script.

import CompletionIO
import Glibc
import Logging
import Synchronization

/// The control thread and what it owns. Other threads reach it by `mailbox` alone.
@safe
final class ControlThread: @unchecked Sendable {
  let configuration: Configuration
  let context: ServerContext
  let port: CompletionPort
  let mailbox: Mailbox<ControlMessage>
  let log: Logger
  let workers: [Worker]
  private var threads: [ThreadHandle] = []
  let startedAt = CompletionPort.clock()

  var deadlines = Deadlines()
  /// Listeners by their handle.
  var listeners: [HandleKey: ServedListener] = [:]
  /// Every address ever listened on has one index for good; 0 is the script's returned table.
  var listenerIndexes: [String: UInt16] = [:]
  var listenerCounters: [UInt16: ListenerCounters] = [:]
  /// Clients by the hash of their address, where the script caps those, by the index of their listener: a reload may close that and
  /// open it again while they stay.
  var clientsPerAddress: [UInt16: [UInt64: Int]] = [:]
  /// Which worker gets the next client among equals.
  var nextWorker = 0
  /// Client sockets that may be open at once.
  var clientDescriptorsMax = 0
  var admin: AdminListener?
  var adminKey = HandleKey.none
  var adminClients: [HandleKey: AdminClientState] = [:]
  /// No more of them are accepted for now.
  var adminRests = false
  /// When the first of them has had its time.
  var adminDeadline = DeadlineKey.none
  var adminPool: UnsafeMutablePointer<BufferPool>
  var reloads = ReloadQueue()
  var watcher: WatchedSnapshot?
  var leaving = LeavingState()
  var now: UInt64 = 0
  /// Whom this process becomes; nil when it stays who it is.
  let user: UserChange?

  /// Reads and tries the script, binds its addresses, and starts the workers; throws what went wrong, in words.
  init(_ configuration: Configuration) throws {
    self.configuration = configuration
    user = try configuration.userName.map { name throws(ServerFailure) in try UserChange(to: name) }
    port = try CompletionPort()
    mailbox = Mailbox(port: port)
    log = Logger(label: "moonport")
    unsafe adminPool = .allocate(capacity: 1)
    unsafe adminPool.initialize(to: BufferPool())
    context = ServerContext(configuration, log: log, isScratch: false)
    workers = try (0..<configuration.workers).map { [context] in try Worker(index: $0, server: context) }
    let offload = OffloadPool(configuration, log: log, dictionaries: context.dictionaries, control: mailbox)
    context.begin(workers: workers, control: mailbox, offload: offload)
  }

  deinit {
    unsafe adminPool.deinitialize(count: 1)
    unsafe adminPool.deallocate()
  }

  /// Starts, serves, ends; the exit status.
  func run() throws -> Int32 {
    let snapshot = try Snapshot.read(script: configuration.scriptPath, number: 1)
    let plan = try ScratchRun.plan(snapshot, configuration, isStart: true)
    let bound = try bind(plan)
    try openAdmin()
    try user?.giveUp()
    SignalThread.start(mailbox)
    for worker in workers {
      threads.append(Thread.start(name: "worker \(worker.index + 1)") { worker.run() })
    }
    let transaction = transaction(snapshot, plan, bound)
    if let problem = makeLive(transaction) {
      end()
      throw ServerFailure.script(problem)
    }
    activate(bound, plan)
    context.generation.store(1, ordering: .relaxed)
    reloads.current = snapshot
    if configuration.watch { startWatching(snapshot) }
    if configuration.console { ConsoleThread.start(workers[0].mailbox) }
    announce()
    while !leaving.isDone { turn() }
    end()
    return leaving.exitStatus
  }

  // MARK: The turn

  private func turn() {
    let next = [deadlines.nextDeadline, watcher?.watcher.nextDeadline].compactMap { $0 }.min()
    let clock = CompletionPort.clock()
    limitAccepts()
    let batch = unsafe port.dequeue(timeoutNanoseconds: next.map { $0 <= clock ? 0 : Int64($0 - clock) } ?? -1)
    now = port.now
    for index in batch.indices { handle(unsafe batch[index]) }
    while let payload = deadlines.popExpired(at: now) { due(ControlDeadline(rawValue: payload)) }
    pollWatcher()
  }

  private func handle(_ completion: Completion) {
    switch completion.kind {
    case .accept: accepted(completion)
    case .packet:
      var messages: [ControlMessage] = []
      mailbox.drain(into: &messages)
      for message in messages { handle(message) }
    case .read where completion.key == watcher?.key: watchRead(completion)
    case .read, .write, .hangup: adminCompleted(completion)
    case .connect, .relay: preconditionFailure("the control thread submits neither connects nor relays")
    }
  }

  private func handle(_ message: ControlMessage) {
    switch message {
    case .released(let listener, let peerHash): clientGone(listener: listener, peerHash: peerHash)
    case .descriptorsFreed: resumeAccepting()
    case .workerEnded: leaving.workersEnded += 1
    case .signal(let signal): received(signal)
    case .perform(let work): work(self)
    }
    if leaving.workersEnded == workers.count { leaving.isDone = true }
  }

  private func due(_ deadline: ControlDeadline?) {
    switch deadline {
    case .drainTick: drainTick()
    case .hurriedEnd: hurryEnd()
    case .forcedEnd: forceEnd()
    case .reloadGrace: endOlderGenerations()
    case .adminPatience: adminPatienceEnds()
    case nil: break
    }
  }

  // MARK: Beginning and end

  /// Says on standard error where clients are served.
  private func announce() {
    for listener in listeners.values.sorted(by: { $0.index < $1.index }) {
      StandardOutput.errors.write(line: "listening on \(listener.bound)")
    }
  }

  /// Ends the workers that still run, and removes what was put into the file system.
  private func end() {
    closeListeners()
    for worker in workers { worker.mailbox.post(.stop(reason: "stop")) }
    for thread in threads { thread.join() }
    context.offload?.end()
    admin?.close()
    for client in leaving.clients { answer(client, AdminReply(status: 0, text: leaving.report)) }
    refuseReloads()
    for client in adminClients.keys { closeAdminClient(client) }
    context.end()
  }
}

/// What the control thread's deadlines are for.
enum ControlDeadline: UInt64 {
  /// Time to look whether a drain is done.
  case drainTick
  /// The workers had their time to handle what was sent to them before they were told to end.
  case hurriedEnd
  /// The workers had their time to end.
  case forcedEnd
  /// Suspended handlers of older code had their time.
  case reloadGrace
  /// An admin client has had its time to send its request or take its reply.
  case adminPatience
}
