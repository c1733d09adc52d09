// A worker: one thread, one completion port, one Lua state, and the turn that joins them. All branching between the parts of
// a turn lives here; what each part does lies in the other files of this folder, in the order of the data's way:
// Input (bytes to messages to handlers), Output (messages to bytes to sockets), Closing, Running (coroutines), Inbox.

import Codecs
import CompletionIO
import Logging
import LuaRuntime
import Synchronization

/// One worker. Its thread alone touches it, but for `mailbox`, `counters` and the constants.
@safe
final class Worker: @unchecked Sendable {
  /// 0-based; scripts see it 1-based.
  let index: Int
  let server: ServerContext
  let port: CompletionPort
  let mailbox: Mailbox<WorkerMessage>
  let counters = WorkerCounters()
  /// What the watchdog says of it; for any thread.
  let watch: WorkerWatch
  let log: Logger

  // MARK: What the worker's thread owns

  let lua: LuaState
  let coroutines: CoroutinePool
  let prelude: Prelude
  let pool: UnsafeMutablePointer<BufferPool>
  var table = ConnectionTable()
  var rooms: Rooms
  var recentRoomNames = RecentRoomNames()
  /// What this turn has broadcast and nobody has got yet.
  var gathered = GatheredBroadcast()
  /// The same for the other workers, as far as scripts of this one have said it.
  var gatheredForOthers = GatheredBroadcast()
  /// Messages for connections of other workers, gathered in this turn.
  var sendsToOthers: SendsToOthers
  /// The list of connections that the last broadcast went through, kept for its memory.
  var visitedSlots: [UInt32] = []
  /// The list of those that had another codec than the first one, kept likewise.
  var slotsOfOtherCodecs: [UInt32] = []
  var codecs = CodecTable()
  var tasks = TaskTable()
  var timers = TimerTable()
  var subscriptions: Subscriptions
  var standstill = Standstill()
  var spawned = SpawnTable()
  var connects = ConnectTable()
  var outgoing = OutgoingHandlersTable()
  var pipes = PipeTable()
  /// How many of the bytes that the port has relayed are counted.
  var countedRelayedBytes: UInt64 = 0
  /// How many of the kernel's pipes, through which it does so, are counted.
  var countedKernelPipes = 0
  var deadlines = Deadlines()
  var relaxation = Relaxation()
  /// Handlers and limits by the server's index of listeners, as the current generation has them.
  var listeners: [ListenerEntry] = []
  /// The generation that is live; nil before the first one is.
  var generation: Generation?
  /// The generation that is being loaded, or waits for the switch.
  var candidate: Generation?
  /// Number of the generation whose code runs outside of any task: it is being loaded, or in its on_restore.
  var beginning: Int?
  /// What it has said meanwhile.
  var sayings = AheadSayings()
  /// Generations whose code may still run, by number: modules may be required late.
  var snapshots: [Int: Snapshot] = [:]
  /// Tasks that yielded by themselves and go on in the next turn.
  var yieldedTasks: [TaskToken] = []
  /// Tasks of code replaced long ago that are still to be ended.
  var oldTasks: [TaskToken] = []
  /// Whose coroutine runs, and its token once it has waited.
  var running: RunningTask?
  /// The errors that handlers of on_error are told of and have not returned from, by number.
  var errorsReported: [UInt32: String] = [:]
  /// The number of the last one.
  var reports: UInt32 = 0
  /// What handlers decided that must not happen while they run.
  var due: [DueWork] = []
  /// How much of it is still to be done in this turn.
  var dueShare = TurnShare(atMost: duePerTurnMax, isTimed: false)
  /// Due work waits: a reload is decided, and what the old code has left to do is the new code's.
  var holdsDue = false
  /// Connections with output to flush at the end of the turn.
  var dirty: [HandleKey] = []
  /// Connections that go on with buffered messages in the next turn.
  var ready: [HandleKey] = []
  /// Connections whose on_drain is to be called.
  var drained: [HandleKey] = []
  /// The connection whose bytes are being cut.
  var cutting = CuttingView()
  /// What clients' messages may take of this turn; once it is used up, each connection still has one handled.
  var messageShare = TurnShare()
  /// Messages that scripts have taken in this turn off other connections than that one.
  var takenBesides = 0
  /// Messages of it that are cut ahead.
  var cutAhead = CutAhead()
  /// Messages taken from the mailbox; those before `inboxNext` are handled.
  var inbox: [WorkerMessage] = []
  var inboxNext = 0
  /// More waits in the mailbox, where its bounds hold until these are handled.
  var hasMail = false
  /// Urgent messages wait there.
  var hasUrgentMail = false
  /// A published message that has not reached all its subscribers.
  var delivery: Delivery?
  let scratch = Scratch()
  /// What an offloaded function has returned, in the state of a background thread.
  var offloadResult: PlainData?
  var now: UInt64 = 0
  /// on_stop runs or has run: what waits now would wait for ever.
  var isStopping = false
  var isEnding = false
  /// It ends before it has handled all that was sent to it.
  var isCutShort = false

  /// Makes a worker with its own port and Lua state; `throws` what the system refused.
  init(index: Int, server: ServerContext) throws {
    self.index = index
    self.server = server
    log = server.log
    watch = WorkerWatch(index: index, server: server)
    sendsToOthers = SendsToOthers(workerCount: server.workerCount)
    port = try CompletionPort()
    mailbox = Mailbox(port: port)
    rooms = Rooms(directory: server.rooms)
    subscriptions = Subscriptions(directory: server.channels, worker: index)
    (lua, prelude) = try Self.openState()
    unsafe pool = .allocate(capacity: 1)
    unsafe pool.initialize(to: BufferPool())
    coroutines = CoroutinePool(lua)
    unsafe lua.setContext(Unmanaged.passUnretained(self).toOpaque())
    guardRuns()
  }

  deinit {
    unsafe pool.deinitialize(count: 1)
    unsafe pool.deallocate()
  }

  /// A state with the functions for scripts and the prelude, which calls none of them before it is used.
  private static func openState() throws -> (LuaState, Prelude) {
    guard let state = unsafe LuaState(context: nil, library: Interface.offered) else { throw ServerFailure.noMemory }
    do {
      return (state, try Prelude(state))
    } catch {
      state.close()
      throw error
    }
  }

  /// The worker that a function offered to scripts is called on.
  @inline(__always)
  static func of(_ context: UnsafeMutableRawPointer?) -> Worker {
    unsafe Unmanaged<Worker>.fromOpaque(context!).takeUnretainedValue()
  }

  /// As `of`, without counting a reference: for what happens with every message. The worker outlives its Lua state.
  @inline(__always)
  static func lend<Result>(_ context: UnsafeMutableRawPointer?, _ body: (Worker) -> Result) -> Result {
    unsafe Unmanaged<Worker>.fromOpaque(context!)._withUnsafeGuaranteedRef(body)
  }

  // MARK: The turn

  /// Runs turns until the worker is told to stop.
  func run() {
    while !isEnding { turn() }
    finish()
  }

  /// Waits, then does everything that has become possible, then sends what came of it. Tests call it one by one.
  func turn() {
    let batch = unsafe port.dequeue(timeoutNanoseconds: timeout())
    now = port.now
    takenBesides = 0
    messageShare = TurnShare(from: now)
    dueShare = TurnShare(atMost: Self.duePerTurnMax, isTimed: false)
    if !due.isEmpty { settle() }
    for index in batch.indices {
      handle(unsafe batch[index])
      if !due.isEmpty { settle() }
    }
    // What follows stands back while due work is left for the next turn: an on_close comes before the client's next on_open.
    if due.isEmpty {
      handleInbox()
      callDrains()
      goOnWithReady()
      goOnWithYielded()
      endOldTasks()
      fireDeadlines()
      startSpawned()
    }
    flushDirty(within: TurnShare())
    report()
  }

  /// How long the port may wait.
  private func timeout() -> Int64 {
    if !ready.isEmpty || !drained.isEmpty || !yieldedTasks.isEmpty || !due.isEmpty || !dirty.isEmpty { return 0 }
    if !inbox.isEmpty || hasMail || hasUrgentMail || delivery != nil { return 0 }
    if !oldTasks.isEmpty || spawned.hasQueued { return 0 }
    guard let next = deadlines.nextDeadline else { return -1 }
    let clock = CompletionPort.clock()
    return next <= clock ? 0 : Int64(next - clock)
  }

  private func handle(_ completion: Completion) {
    switch completion.kind {
    case .read: received(completion)
    case .write: written(completion)
    case .hangup: hungUp(completion)
    case .packet where completion.packet.key == Mailbox<WorkerMessage>.urgentPacketKey: hasUrgentMail = true
    case .packet: hasMail = true
    case .connect: connected(completion)
    case .relay: relayed(completion)
    case .accept: preconditionFailure("a worker submits no accepts")
    }
  }

  private func goOnWithReady() {
    if ready.isEmpty { return }
    // Not less than those that were read from have had, whatever the inbox has taken.
    messageShare = TurnShare(from: CompletionPort.clock())
    let keys = ready
    ready.removeAll(keepingCapacity: true)
    for key in keys {
      guard let connection = unsafe table.find(key) else { continue }
      unsafe connection.pointee.flags.remove(.ready)
      unsafe cut(connection)
      settle()
    }
  }

  /// Deadlines handled in one turn: timers and sleepers that are due together by the thousand leave sockets a chance between.
  private static let deadlinesPerTurnMax = 1024

  private func fireDeadlines() {
    // The clock of the turn's beginning: a deadline that passed during this turn is for the next one.
    var share = TurnShare(atMost: Self.deadlinesPerTurnMax)
    while !share.isUsedUp, let payload = deadlines.popExpired(at: now) {
      switch DeadlinePurpose(payload: payload) {
      case .connection(let key): connectionDue(key)
      case .task(let token): taskDue(token)
      case .timer(let token): timerDue(token)
      case .connect(let key): connectDue(key)
      case .memory: relaxMemory()
      }
      settle()
      share.spend()
    }
  }

  /// What `status` shows of the turns.
  private func report() {
    let nanoseconds = Int(CompletionPort.clock() &- now)
    counters.turns.add(1)
    counters.busyNanoseconds.add(nanoseconds)
    if nanoseconds > counters.longestTurnNanoseconds.current { counters.longestTurnNanoseconds.set(nanoseconds) }
    counters.luaBytes.set(lua.memoryBytes)
    counters.budgetErrors.set(lua.endedRuns)
    if lua.wantsMemory { recoverMemory() }
    if lua.isSwollen { willRelaxMemory() }
    reportPiping()
  }
}

/// Handlers and limits of one listener as the worker's current generation has them.
@safe
struct ListenerEntry {
  var handlers = HandlerSet()
  var limits = ConnectionLimits()
  var codec: UInt16 = CodecTable.raw
  /// Kept alive by the control thread as long as the server runs.
  var counters: Unmanaged<ListenerCounters>?
  /// False once a reload has removed it; its connections live on with the returned table's handlers.
  var isCurrent = false
}

/// What a handler decided that happens once it has returned or waits, in this order.
enum DueWork {
  /// on_close, of a connection whose slot may be gone already.
  case closed(object: LuaReference, handlers: ClosedHandlers, reason: CloseReason, connection: HandleKey)
  /// A waiting task's result.
  case wake(WaitTicket, WakeResult)
  /// The answer that a task waits for.
  case answer(WaitTicket, WaitAnswer)
  /// An outgoing connection is made.
  case connected(ConnectNumber)
  /// The script yielded; it goes on.
  case goOn(TaskToken)
  /// A task whose wait was ended by `cancel` goes on with that error.
  case end(TaskToken)
}

/// Whose on_close is called for a connection that may be gone.
struct ClosedHandlers {
  var listener: UInt16
  /// As in the connection; held until then where it is an outgoing one's.
  var own: Int32
}

/// What a waiting call returns without data.
enum WakeResult {
  case closed
  case timeout
  case slept
}

/// Why a connection ended, as `on_close` gets it.
enum CloseReason {
  case peer, timeout, overflow, tooLong, messageRate, reset, error, shutdown
  /// The script's own word; "script" where it gave none.
  case script(String)

  var text: String {
    switch self {
    case .peer: "peer"
    case .timeout: "timeout"
    case .overflow: "overflow"
    case .tooLong: "too long"
    case .messageRate: "message rate"
    case .reset: "reset"
    case .error: "error"
    case .shutdown: "shutdown"
    case .script(let reason): reason
    }
  }
}

/// Reusable memory for bytes on their way into Lua when the place they lie in goes away first.
@safe
final class Scratch {
  private var block = UnsafeMutableRawBufferPointer.allocate(byteCount: 4096, alignment: 16)
  /// Memory kept between uses: more is given back after a large message.
  private static let keptBytesMax = 1 << 20

  /// A copy, valid until the next one.
  func copy(_ bytes: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
    let room = unsafe reserve(bytes.count)
    unsafe room.copyMemory(from: bytes)
    return unsafe UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(room)[..<bytes.count])
  }

  /// At least `count` bytes of memory, valid until the next use.
  func reserve(_ count: Int) -> UnsafeMutableRawBufferPointer {
    if unsafe count > block.count || block.count > Self.keptBytesMax {
      unsafe block.deallocate()
      unsafe block = .allocate(byteCount: max(count, 4096), alignment: 16)
    }
    return unsafe block
  }

  /// Lets go of what a large message took.
  func giveBack() { _ = unsafe reserve(0) }

  deinit { unsafe block.deallocate() }
}
