// A worker's part in a reload: loading beside the running generation, handing state over, and the switch.

import Codecs
import CompletionIO
import LuaRuntime

extension Worker {
  // MARK: Loading

  /// Loads the transaction's snapshot as the candidate and reports how that went.
  func prepare(_ transaction: ReloadTransaction) {
    let problem = load(Generation(number: transaction.number, snapshot: transaction.snapshot)) ?? mismatch(transaction)
    if problem != nil { discardCandidate() }
    transaction.loaded(problem)
  }

  /// Runs a script in its own environment; the error's text, or nil when it is the candidate now.
  func load(_ generation: Generation) -> String? {
    candidate = generation
    beginning = generation.number
    defer { beginning = nil }
    let problem = unsafe lua.call(
      prelude.load, LuaArguments(.integer(Int64(generation.number))),
      budgetNanoseconds: loadBudgetNanoseconds
    ) { outcome -> String? in
      if let failure = outcome.failure { return failure.message }
      return unsafe outcome[0].isNil ? nil : outcome[0].text
    }
    if problem != nil { discardCandidate() }
    return problem
  }

  /// A script that listens elsewhere than it did in the scratch run.
  private func mismatch(_ transaction: ReloadTransaction) -> String? {
    guard let candidate else { return nil }
    let same = candidate.listeners.map(\.address) == transaction.plan.filter { !$0.isMade }.map(\.declaredAddress)
    return same
      ? nil
      : "\(transaction.snapshot.main.displayName): moonport.listen was called with other addresses on worker \(index + 1)"
        + " than in the trial run; they must not depend on the worker or on chance"
  }

  func discard(_ transaction: ReloadTransaction) {
    if candidate?.number == transaction.number { discardCandidate() }
  }

  private func discardCandidate() {
    guard let candidate else { return }
    self.candidate = nil
    _ = sayings.take()
    forgetSpawned("reloaded") { $0.codeGeneration == candidate.number }
    retire(candidate)
  }

  /// Gives back everything that Lua keeps for a generation.
  private func retire(_ generation: Generation) {
    for token in timers.tokens(where: { $0.codeGeneration == generation.number }) { cancelTimer(token) }
    cancelSubscriptions(of: generation.number)
    for reference in generation.references { lua.release(reference) }
    for codec in generation.codecs { codecs.release(codec, lua: lua) }
    unsafe lua.call(prelude.forget, LuaArguments(.integer(Int64(generation.number)))) { _ in }
  }

  // MARK: The switch

  /// Meets the other workers, hands the state over and, if all could, makes the candidate live.
  func commit(_ transaction: ReloadTransaction) {
    flushDirty()
    guard transaction.meet() else { return discardCandidate() }
    // Everybody has stopped: what the old code has sent is either out or in the mailboxes.
    holdPublished()
    let isDelivered = deliverWaiting(
      toSubscribers: true, until: CompletionPort.clock() + transaction.meetingNanoseconds)
    flushDirty()
    let problem = isDelivered ? handOver(transaction) : tooMuchWaits
    // What on_save has broadcast is in the others' mailboxes before they are asked to deliver it.
    postGathered()
    let isSwitching = transaction.decide(handedOver: problem)
    // Everybody has delivered what was published before the meeting: what comes now is for the code that goes on.
    releasePublished()
    guard isSwitching else { return discardCandidate() }
    // on_save may have broadcast: that, too, is old code's, and out before anybody's new code runs. Handlers that follow from it, such
    // as on_close, wait: what they would send to other workers now might come behind what new code has sent there.
    holdsDue = true
    _ = deliverWaiting(toSubscribers: false)
    flushDirty()
    transaction.waitUntilDelivered()
    makeLive(transaction)
  }

  /// Why a reload fails on a worker that is far behind.
  private var tooMuchWaits: String {
    "worker \(index + 1) could not deliver in time what was sent and published to its clients and subscribers before the"
      + " reload; it goes on, so try again once it has caught up"
  }

  private func handOver(_ transaction: ReloadTransaction) -> String? {
    let arguments = unsafe LuaArguments(.integer(Int64(generation?.number ?? 0)), .integer(Int64(transaction.number)))
    guard generation != nil else { return nil }
    // Set by the prelude, between on_save and on_restore.
    defer { beginning = nil }
    let problem = lua.call(prelude.handOver, arguments, budgetNanoseconds: loadBudgetNanoseconds) {
      $0.failure?.message
    }
    guard let problem else { return nil }
    let note = lua.call(prelude.handOverNote, LuaArguments()) { $0.failure == nil ? unsafe $0[0].text : "" }
    return note.isEmpty ? problem : "\(problem)\n\(note)"
  }

  private func makeLive(_ transaction: ReloadTransaction) {
    guard let new = candidate else { preconditionFailure("the generation to switch to is gone") }
    let old = generation
    generation = new
    candidate = nil
    holdsDue = false
    snapshots[new.number] = new.snapshot
    // Code of the generation before the last has ended; what it might still require is not needed any more.
    for number in snapshots.keys where number < (old?.number ?? 0) { snapshots[number] = nil }
    counters.olderTasks.set(tasks.count(olderThan: new.number))
    enterListeners(new, transaction)
    enterDictionaryCaps(new)
    transaction.hasSwitched()
    if let old {
      outgoing.goOn(with: new, after: old)
      keepConnections(new, transaction)
      // What runs on code older than the last generation has had a whole generation's time.
      endTasks(olderThan: old.number)
      retire(old)
      willRelaxMemory()
    }
    saySayings()
    callStart(new)
    spawned.queueHeld()
  }

  /// Handlers, codecs and limits by the server's index of listeners.
  private func enterListeners(_ new: Generation, _ transaction: ReloadTransaction) {
    let main = new.sets[0]
    if listeners.isEmpty { listeners.append(ListenerEntry()) }
    for index in listeners.indices {
      listeners[index].handlers = main
      listeners[index].isCurrent = false
    }
    for (settings, (id, counters)) in zip(new.listeners, zip(transaction.listeners, transaction.counters)) {
      while listeners.count <= Int(id) { unsafe listeners.append(ListenerEntry(handlers: main)) }
      listeners[Int(id)] = unsafe ListenerEntry(
        handlers: new.sets[settings.handlers], limits: settings.limits, codec: settings.codec,
        counters: Unmanaged.passUnretained(counters),
        isCurrent: true)
    }
    for (offset, id) in transaction.listeners.enumerated() where offset >= new.listeners.count {
      // The listener that the command line made for a script without one.
      while listeners.count <= Int(id) { unsafe listeners.append(ListenerEntry(handlers: main)) }
      listeners[Int(id)] = unsafe ListenerEntry(
        handlers: main, counters: Unmanaged.passUnretained(transaction.counters[offset]), isCurrent: true)
    }
  }

  /// Connections that use a codec in Lua go on with the new code's; limits that changed are looked at.
  private func keepConnections(_ new: Generation, _ transaction: ReloadTransaction) {
    for key in table.keys() {
      guard let connection = unsafe table.find(key), unsafe connection.pointee.phase == .open else { continue }
      let wasUnheard = unsafe connection.pointee.flags.contains(.unheard)
      unsafe listenOrHold(connection)
      // What has waited for an on_message has one now.
      if wasUnheard, unsafe !connection.pointee.flags.contains(.unheard) { unsafe goOn(with: connection) }
      unsafe startRate(connection)
      if unsafe connection.pointee.flags.contains(.rateHeld) { unsafe release(held: connection) }
      let entry = unsafe listeners[Int(connection.pointee.listener)]
      let codec = entry.codec
      // A removed listener's codec went with its generation; its connections hold on to theirs.
      if entry.isCurrent, unsafe !connection.pointee.flags.contains(.ownCodec),
        case .scripted = unsafe codecs[connection.pointee.codec],
        case .scripted = codecs[codec]
      {
        codecs.retain(codec)
        unsafe codecs.release(connection.pointee.codec, lua: lua)
        unsafe connection.pointee.codec = codec
        if unsafe !connection.pointee.inbound.isEmpty { unsafe markReady(connection) }
      }
      unsafe scheduleOpenDeadline(connection)
    }
  }

  private func callStart(_ new: Generation) {
    let handler = new.sets[0].start
    guard handler.exists else { return }
    let owner = TaskOwner(kind: .event, connection: .none, codeGeneration: new.number)
    unsafe start(handler, LuaArguments(.integer(Int64(index + 1))), owner)
    settle()
  }
}
