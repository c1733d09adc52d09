// Running Lua: starting a handler on a pooled coroutine, resuming one that waited, and what follows when it returns, waits or
// fails. Nothing here runs while another handler runs: what handlers decide for others is queued as due work.

import Codecs
import CompletionIO
import Logging
import LuaRuntime

/// The coroutine that runs at this moment.
struct RunningTask {
  var owner: TaskOwner
  /// Its token, once it has waited.
  var token = TaskToken.none
}

extension Worker {
  /// Number of the live generation, or of the one being loaded before there is one.
  var generationNumber: Int { generation?.number ?? candidate?.number ?? 0 }

  /// Number of the generation whose code runs at this moment, as far as that is known: timers and tasks that it makes are that one's.
  var runningGeneration: Int { running?.owner.codeGeneration ?? beginning ?? generationNumber }

  // MARK: Starting and resuming

  /// Starts a function of a script as a coroutine.
  func start(_ function: LuaReference, _ arguments: LuaArguments, _ owner: TaskOwner) {
    guard let thread = begin(owner) else { return }
    after(coroutines.start(thread, function, arguments), thread)
  }

  /// Starts the on_message of a connection, and has it called again with what `next` gives as long as it returns without waiting.
  func startMessages(
    _ handler: LuaReference, _ object: LuaReference, _ first: LuaBytes, _ owner: TaskOwner, next: @escaping NextBody
  ) {
    guard let thread = begin(owner) else { return }
    unsafe after(coroutines.startMessages(thread, handler, object, first, next: next), thread)
  }

  /// A thread for a task that is the running one from now on; nil where memory does not suffice, which fails the task.
  @inline(__always)
  private func begin(_ owner: TaskOwner) -> LuaThread? {
    precondition(running == nil, "a handler was started inside another")
    if let connection = unsafe table.find(owner.connection) { unsafe connection.pointee.activeTasks += 1 }
    guard let thread = coroutines.take() else {
      failed(RunningTask(owner: owner), "not enough memory to run a handler")
      return nil
    }
    running = RunningTask(owner: owner)
    return thread
  }

  /// Resumes a suspended task: the call it waits in returns these values.
  func resume(
    _ token: TaskToken, _ first: LuaValue, _ second: LuaValue? = nil, _ third: LuaValue? = nil,
    _ fourth: LuaValue? = nil
  ) {
    guard let thread = wakeUp(token) else { return }
    unsafe after(coroutines.resume(thread, returning: first, second, third, fourth), thread)
  }

  /// Resumes a suspended task: the call it waits in raises.
  func resume(_ token: TaskToken, raising message: LuaValue) {
    guard let thread = wakeUp(token) else { return }
    unsafe after(coroutines.resume(thread, raising: message), thread)
  }

  /// Ends a task's wait and makes it the running one.
  private func wakeUp(_ token: TaskToken) -> LuaThread? {
    precondition(running == nil, "a task was resumed inside another")
    guard let thread = tasks[token].thread else { return nil }
    endWait(token)
    running = RunningTask(owner: tasks[token].owner, token: token)
    tasks[token].thread = nil
    return thread
  }

  /// Undoes what a wait had set up.
  func endWait(_ token: TaskToken) {
    if case .receive(let key, _) = tasks[token].wait, let connection = unsafe table.find(key),
      unsafe connection.pointee.receiver == token
    {
      unsafe connection.pointee.receiver = .none
      // What it did not take is the next message's; nothing else may come to have it looked at.
      if unsafe !connection.pointee.flags.contains(.cutting) && !connection.pointee.inbound.isEmpty {
        unsafe markReady(connection)
      }
    }
    if case .answer(let source) = tasks[token].wait { stopWaiting(token, for: source) }
    _ = deadlines.cancel(tasks[token].deadline)
    tasks[token].deadline = .none
    tasks[token].wait = .nothing
  }

  // MARK: Afterwards

  private func after(_ run: LuaRun, _ thread: LuaThread) {
    guard let task = running else { preconditionFailure("a run ended that never began") }
    running = nil
    switch run {
    case .returned:
      let refused = task.owner.kind == .open && coroutines.returnedFalse(thread)
      coroutines.give(thread)
      finished(task, refused: refused)
    case .waits where !isWaiting(task):
      // Only a script that got hold of the bridge's own mark, by the debug library, yields it without a wait.
      yielded(task, thread)
    case .waits:
      if tasks[task.token].ending != .none { return endHere(task, thread) }
      tasks[task.token].thread = thread
    case .yielded: yielded(task, thread)
    case .failed:
      let message = unsafe coroutines.describe(thread) { unsafe $0.text }
      coroutines.end(thread)
      // on_error may need what the handler took.
      if lua.wantsMemory { recoverMemory() }
      failed(task, message)
    }
  }

  /// Whether a task that was just suspended has asked to be.
  private func isWaiting(_ task: RunningTask) -> Bool {
    guard task.token != .none else { return false }
    if case .nothing = tasks[task.token].wait { return tasks[task.token].ending != .none }
    return true
  }

  /// The script yielded by itself in a handler: others get their turn, then it goes on.
  private func yielded(_ task: RunningTask, _ thread: LuaThread) {
    running = task
    let token = tokenToWait(.turn, until: nil)
    running = nil
    guard let token else { return endHere(task, thread) }
    tasks[token].thread = thread
    due.append(.goOn(token))
  }

  /// Ends a task that must not wait any more: it belongs to old code, or too many are suspended.
  private func endHere(_ task: RunningTask, _ thread: LuaThread) {
    let ending = task.token == .none ? TaskEnding.none : tasks[task.token].ending
    coroutines.end(thread)
    failed(task, ending == .none ? "too many suspended tasks" : "\(ending.text)")
  }

  /// The task is over: its connection may go on.
  private func finished(_ task: RunningTask, refused: Bool) {
    if task.token != .none {
      endWait(task.token)
      tasks.remove(task.token)
      if task.owner.codeGeneration < generationNumber { counters.olderTasks.add(-1) }
    }
    if task.owner.kind == .timer { timerFinished(task.owner.timer) }
    if task.owner.kind == .spawned { spawnedFinished(task.owner.spawned) }
    if task.owner.kind == .errorHandler { errorsReported[task.owner.report] = nil }
    guard let connection = unsafe table.find(task.owner.connection) else { return }
    unsafe connection.pointee.activeTasks -= 1
    if task.owner.kind == .open || task.owner.kind == .message { unsafe connection.pointee.flags.remove(.busy) }
    if refused { return unsafe refuse(connection) }
    switch unsafe connection.pointee.phase {
    case .open:
      if task.token != .none { unsafe goOn(with: connection) }
    case .ending: unsafe conclude(connection)
    case .flushing, .lingering, .free: break
    }
  }

  /// A handler that had waited is done, or there is one now: what its connection sent meanwhile is next.
  func goOn(with connection: UnsafeMutablePointer<Connection>) {
    if unsafe connection.pointee.flags.contains(.cutting) { return }
    if unsafe !connection.pointee.inbound.isEmpty || connection.pointee.flags.contains(.endOfStream) {
      unsafe markReady(connection)
    } else {
      unsafe resumeReading(connection)
    }
  }

  private func failed(_ task: RunningTask, _ message: String) {
    if task.owner.kind == .spawned {
      spawnedFailed(task, message)
      return finished(task, refused: false)
    }
    if endsQuietly(task, message) { return finished(task, refused: false) }
    counters.errors.add(1)
    let connection = unsafe table.find(task.owner.connection)
    let handler = unsafe connection.map { unsafe handlers(of: $0).error } ?? .none
    if let connection = unsafe connection, unsafe connection.pointee.object.exists, handler.exists,
      task.owner.kind != .errorHandler
    {
      unsafe reportToScript(handler, connection, message, task)
    } else {
      let whose: Logger.Metadata = unsafe connection.map { ["id": unsafe "\(id(of: $0).rawValue)"] } ?? [:]
      log.error("\(message)", metadata: whose)
      if task.owner.kind == .errorHandler, let reported = errorsReported[task.owner.report] {
        log.error("on_error was told of: \(reported)", metadata: whose)
      }
      finished(task, refused: false)
      if let connection = unsafe table.find(task.owner.connection) { unsafe close(connection, .error) }
    }
  }

  /// on_error of the connection whose handler failed.
  private func reportToScript(
    _ handler: LuaReference, _ connection: UnsafeMutablePointer<Connection>, _ message: String, _ task: RunningTask
  ) {
    reports &+= 1
    errorsReported[reports] = message
    var text = message
    let object = unsafe connection.pointee.object
    let owner = unsafe TaskOwner(
      kind: .errorHandler, connection: task.owner.connection, report: reports,
      codeGeneration: codeGeneration(of: connection))
    text.withUTF8 { bytes in
      unsafe start(handler, LuaArguments(.reference(object), .bytes(UnsafeRawBufferPointer(bytes))), owner)
    }
    finished(task, refused: false)
  }

  // MARK: Due work

  /// Pieces of due work done in one turn: a hundred thousand tasks that one event wakes leave sockets a chance between. More than what
  /// the messages of a turn can decide, so that nothing piles up.
  static let duePerTurnMax = 16_384

  /// Does what handlers decided, until nothing is left, as each step may decide more, or the turn has done enough: the rest is the next
  /// turn's.
  func settle() {
    if holdsDue { return }
    var next = 0
    while next < due.count, !dueShare.isUsedUp {
      let work = due[next]
      next += 1
      dueShare.spend()
      switch work {
      case .closed(let object, let handlers, let reason, let key): callClose(object, handlers, reason, key)
      case .connected(let number): openOutgoing(number)
      case .wake(let ticket, let result): wake(ticket, result)
      case .answer(let ticket, let answer): give(answer, to: ticket)
      case .end(let token): raiseEnding(token)
      case .goOn(let token):
        if tasks.isCurrent(token), case .turn = tasks[token].wait { yieldedTasks.append(token) }
      }
    }
    if next == due.count { due.removeAll(keepingCapacity: true) } else { due.removeFirst(next) }
  }

  private func wake(_ ticket: WaitTicket, _ result: WakeResult) {
    let token = ticket.token
    guard tasks.isCurrent(token), tasks[token].waitNumber == ticket.number, canGoOn(token) else { return }
    switch (result, tasks[token].wait) {
    case (.closed, .receive): unsafe resume(token, .nil, .text("closed"))
    case (.timeout, .receive(let key, _)):
      let rest = unsafe table.find(key).map { unsafe unconsumed($0) }
      let partial = unsafe rest ?? UnsafeRawBufferPointer(start: nil, count: 0)
      unsafe resume(token, .nil, .text("timeout"), .bytes(partial))
    case (.slept, .sleep): unsafe resume(token, .nil)
    default: break
    }
  }

  private func callClose(_ object: LuaReference, _ whose: ClosedHandlers, _ reason: CloseReason, _ key: HandleKey) {
    defer {
      lua.release(object)
      outgoing.release(whose.own, lua: lua)
    }
    let handlers = whose.own < 0 ? listeners[Int(whose.listener)].handlers : outgoing[whose.own].handlers
    let generation = whose.own < 0 ? generationNumber : outgoing[whose.own].codeGeneration
    let handler = handlers.close
    guard handler.exists else { return }
    var text = reason.text
    let owner = TaskOwner(kind: .event, connection: key, codeGeneration: generation)
    text.withUTF8 { bytes in
      unsafe start(handler, LuaArguments(.reference(object), .bytes(UnsafeRawBufferPointer(bytes))), owner)
    }
  }

  /// Calls the on_drain of connections whose output has gone out, each once: one that at once sends more comes up again in the
  /// next turn, or a client that reads fast would keep the others waiting.
  func callDrains() {
    if drained.isEmpty { return }
    let keys = drained
    drained.removeAll(keepingCapacity: true)
    var share = TurnShare()
    for (offset, key) in keys.enumerated() {
      if share.isUsedUp { return drained.insert(contentsOf: keys[offset...], at: 0) }
      callDrain(key)
      settle()
      share.spend()
    }
  }

  private func callDrain(_ key: HandleKey) {
    guard let connection = unsafe table.find(key), unsafe connection.pointee.phase == .open else { return }
    let handler = unsafe handlers(of: connection).drain
    guard handler.exists else { return }
    let owner = unsafe TaskOwner(kind: .event, connection: key, codeGeneration: codeGeneration(of: connection))
    unsafe start(handler, LuaArguments(.reference(connection.pointee.object)), owner)
  }

  /// Tasks that yielded by themselves which go on in one turn.
  private static let yieldedPerTurnMax = 1024

  /// Tasks that yielded by themselves go on, once each turn.
  func goOnWithYielded() {
    if yieldedTasks.isEmpty { return }
    var share = TurnShare(atMost: Self.yieldedPerTurnMax)
    var next = 0
    let tokens = yieldedTasks
    while next < tokens.count, !share.isUsedUp {
      goOn(tokens[next])
      next += 1
      share.spend()
    }
    yieldedTasks.removeFirst(next)
  }

  private func goOn(_ token: TaskToken) {
    guard tasks.isCurrent(token), case .turn = tasks[token].wait, canGoOn(token) else { return }
    unsafe resume(token, .nil)
    settle()
  }

  // MARK: Ending old code

  /// Ends the wait of a task that is to end: its call raises why.
  private func raiseEnding(_ token: TaskToken) {
    guard tasks.isCurrent(token) else { return }
    unsafe resume(token, raising: .text(tasks[token].ending.text))
  }

  /// Tasks of old code that are ended in one turn.
  private static let endedPerTurnMax = 1024

  /// Whether a suspended task may be given what it waits for. One that is to be ended in this turn or a later one may not: the end of
  /// one that it waits for would else have it go on as if all were well.
  func canGoOn(_ token: TaskToken) -> Bool { tasks[token].thread != nil && tasks[token].ending == .none }

  /// Has every suspended task of generations before `number` ended with the error "reloaded", from this turn on; those that have not
  /// started, and the timers that such tasks have set since their generation was replaced, are forgotten.
  func endTasks(olderThan number: Int) {
    let tokens = tasks.tokens { $0.owner.codeGeneration < number }
    for token in tokens where tasks[token].ending == .none { tasks[token].ending = .reloaded }
    oldTasks += tokens
    forgetSpawned("reloaded") { $0.codeGeneration < number }
    for token in timers.tokens(where: { $0.codeGeneration < number }) { cancelTimer(token) }
  }

  /// Ends the next of the tasks that are to end.
  func endOldTasks() {
    if oldTasks.isEmpty { return }
    let tokens = Array(oldTasks.prefix(Self.endedPerTurnMax))
    oldTasks.removeFirst(tokens.count)
    for token in tokens where tasks.isCurrent(token) && tasks[token].thread != nil {
      tasks[token].endsInPipe = waitsForPipe(token)
      raiseEnding(token)
      settle()
    }
  }
}
