// Waiting and being answered: how the running coroutine comes to wait, and how what it waits for reaches it once, and never
// another wait of the same coroutine. Resuming as such is in Worker+Running.swift.

import CompletionIO
import LuaRuntime

/// One wait of one task. An answer that names a wait that is over is dropped.
struct WaitTicket: Equatable, Sendable {
  let token: TaskToken
  let number: UInt32
}

/// What gives the answer that a task waits for, and so what has to be undone if it stops waiting.
enum AnswerSource {
  /// Another thread, which may answer late: nothing is undone.
  case elsewhere
  /// A background thread, which need not begin any more.
  case offload(OffloadJob)
  /// A connection that is being made, which is given up.
  case connect(ConnectNumber)
  /// The end of a pipe, which goes on by itself.
  case pipe(Int32)
}

/// What a call returns or raises that has waited for an answer.
enum WaitAnswer: Sendable {
  /// `true`: what was waited for has happened.
  case done
  case integers(Int64, Int64)
  /// One sequence of texts.
  case texts([[UInt8]])
  /// A value that somebody else keeps in the worker's Lua state.
  case object(LuaReference)
  /// A value kept in the worker's Lua state for this answer alone, which gives it back.
  case given(LuaReference)
  /// Any number of results, from another state.
  case plain(PlainData)
  /// `nil` and a stable reason.
  case fails(StaticString)
  /// `nil`, a stable reason, and how far it had come.
  case failsAfter(StaticString, Int64, Int64)
  /// `nil` and a message.
  case failsWith(String)
  /// An error at the script's line.
  case raises(String)
}

extension Worker {
  /// A token for the running task, which is about to wait; nil at the bound, or when it is to end.
  func tokenToWait(_ wait: TaskWait, until time: UInt64?) -> TaskToken? {
    guard let token = enterRunning(), tasks[token].ending == .none else { return nil }
    endWait(token)
    tasks[token].wait = wait
    tasks[token].waitNumber &+= 1
    if let time {
      tasks[token].deadline = deadlines.schedule(at: time, payload: DeadlinePurpose.task(token).payload)
    }
    return token
  }

  /// The running task's token, made if it has none yet; nil at the bound, or when nothing runs.
  func enterRunning() -> TaskToken? {
    guard let task = running else { return nil }
    if task.token != .none { return task.token }
    guard let token = tasks.insert(task.owner) else { return nil }
    if task.owner.codeGeneration < generationNumber { counters.olderTasks.add(1) }
    if task.owner.kind == .spawned { spawned[task.owner.spawned].task = token }
    running?.token = token
    return token
  }

  /// Waits of a task that is to end which raise: enough for any clean-up. One that catches the error again and again is
  /// then ended where it waits, or it would hold the worker for good.
  private static let refusedWaitsMax: UInt16 = 1000

  /// Answers a wait of the running task if that was told to end, or the worker ends; false if it was not.
  func refuseWaitIfEnding(_ call: HostCall) -> Bool {
    if isStopping {
      unsafe call.raises(.text("the server is ending: nothing can wait any more"))
      return true
    }
    guard let task = running, task.token != .none, tasks[task.token].ending != .none else { return false }
    tasks[task.token].refusedWaits += 1
    if tasks[task.token].refusedWaits > Self.refusedWaitsMax {
      call.waits()
    } else {
      unsafe call.raises(.text(tasks[task.token].ending.text))
    }
    return true
  }

  func taskDue(_ token: TaskToken) {
    guard tasks.isCurrent(token) else { return }
    tasks[token].deadline = .none
    switch tasks[token].wait {
    case .receive: due.append(.wake(ticket(token), .timeout))
    case .answer: due.append(.answer(ticket(token), .fails("timeout")))
    case .sleep, .turn, .nothing: due.append(.wake(ticket(token), .slept))
    }
  }

  /// Undoes what a wait for an answer has set up.
  func stopWaiting(_ token: TaskToken, for source: AnswerSource) {
    switch source {
    case .elsewhere: break
    case .offload(let job): server.offload?.abandon(job)
    case .connect(let number): abandonConnect(number)
    case .pipe(let index):
      // A reload leaves the bytes alone; a script that cancels means them.
      if tasks[token].ending == .cancelled { cancelPipe(index, ticket(token)) }
    }
  }

  // MARK: Answers

  /// Suspends the running task until `source` answers it; nil when it cannot wait, which is raised.
  func wait(_ call: HostCall, for source: AnswerSource, until time: UInt64? = nil) -> WaitTicket? {
    if refuseWaitIfEnding(call) { return nil }
    guard let token = tokenToWait(.answer(source), until: time) else {
      unsafe call.raises(.text("too many suspended tasks on this worker"))
      return nil
    }
    call.waits()
    return ticket(token)
  }

  /// Whether the wait that `ticket` names goes on.
  func isWaiting(_ ticket: WaitTicket) -> Bool {
    guard tasks.isCurrent(ticket.token), tasks[ticket.token].waitNumber == ticket.number else { return false }
    if case .answer = tasks[ticket.token].wait { return true }
    return false
  }

  /// The present wait of a task.
  func ticket(_ token: TaskToken) -> WaitTicket { WaitTicket(token: token, number: tasks[token].waitNumber) }

  /// Resumes the task whose wait `ticket` names; harmless when that wait is over.
  func give(_ answer: WaitAnswer, to ticket: WaitTicket) {
    let token = ticket.token
    guard isWaiting(ticket), canGoOn(token) else { return drop(answer) }
    switch answer {
    case .done: unsafe resume(token, .boolean(true))
    case .fails(let reason): unsafe resume(token, .nil, .text(reason))
    case .failsAfter(let reason, let first, let second):
      unsafe resume(token, .nil, .text(reason), .integer(first), .integer(second))
    case .failsWith(var message): message.withUTF8 { unsafe resume(token, .nil, .bytes(UnsafeRawBufferPointer($0))) }
    case .raises(var message): message.withUTF8 { unsafe resume(token, raising: .bytes(UnsafeRawBufferPointer($0))) }
    case .integers(let first, let second): unsafe resume(token, .integer(first), .integer(second))
    case .texts(let texts): unsafe resume(token, textList(texts))
    case .plain(let data): unsafe data.withValue { unsafe resume(token, $0) }
    case .object(let reference): unsafe resume(token, .reference(reference))
    case .given(let reference): unsafe resume(token, .given(reference))
    }
  }

  /// Has a wait fail in the next turn: in this one, a script that tries again and again would never let another be served.
  func fail(_ ticket: WaitTicket, _ reason: StaticString) { mailbox.post(.answer(ticket, .fails(reason))) }

  /// Gives back what an answer that nobody waits for has kept.
  private func drop(_ answer: WaitAnswer) {
    if case .given(let reference) = answer { lua.release(reference) }
  }
}
