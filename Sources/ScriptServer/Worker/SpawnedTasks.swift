// The tasks that scripts spawned and that have not ended: how each is run, and who waits for it. What a task left is not here: the
// script's own object has it, so that it is freed with that. Plain data: starting, ending and waking are the worker's.

import DequeModule
import LuaRuntime

/// Slot and generation of a spawned task; one that outlived its task is recognised.
struct SpawnToken: Equatable {
  var slot: UInt32
  var generation: UInt32
  static let none = SpawnToken(slot: 0, generation: 0)

  /// As scripts hold it.
  var rawValue: Int64 { Int64(generation) << 24 | Int64(slot) }

  init(slot: UInt32, generation: UInt32) {
    self.slot = slot
    self.generation = generation
  }

  init(rawValue: Int64) {
    self.init(slot: UInt32(rawValue & 0xff_ffff), generation: UInt32(truncatingIfNeeded: rawValue >> 24))
  }
}

/// One task that has not ended.
struct SpawnedTask {
  var token: SpawnToken
  /// Runs it; called with a text, it is told that the task has ended so. `none` where the slot is free.
  var run: LuaReference
  var codeGeneration: Int
  /// It has been started.
  var isRunning = false
  /// Its token among the suspended tasks, once it has waited.
  var task = TaskToken.none
  /// Who waits for its end; also some that do no more.
  var waiters: [WaitTicket] = []
  /// At that many waiters, those that wait no more are looked for: each is so looked at only a few times.
  var waitersKeptMax = 16
}

/// The table. Owned by the worker's thread.
struct SpawnTable: ~Copyable {
  private var slots: [SpawnedTask] = []
  private var free: [UInt32] = []
  private(set) var count = 0
  /// Those to start, in the order of their spawning.
  private var queue: Deque<SpawnToken> = []
  /// The most that have waited there since it was last new.
  private var queuePeak = 0
  /// Those that were spawned by a generation which is not live yet.
  private var held: [SpawnToken] = []

  /// Tasks of one worker that have not ended: 400 bytes each while they wait to be started make 100 MB.
  static let spawnedTasksMax = 1 << 18

  init() {}

  /// Whether there are tasks to start.
  var hasQueued: Bool { !queue.isEmpty }

  /// Enters a task to be started, or, `isHeld`, one that waits for its generation to go live; nil at the bound.
  mutating func insert(_ run: LuaReference, codeGeneration: Int, isHeld: Bool) -> SpawnToken? {
    guard count < Self.spawnedTasksMax else { return nil }
    count += 1
    let slot = free.popLast() ?? UInt32(slots.count)
    let generation = Int(slot) < slots.count ? slots[Int(slot)].token.generation : 1
    let task = SpawnedTask(
      token: SpawnToken(slot: slot, generation: generation), run: run, codeGeneration: codeGeneration)
    if Int(slot) < slots.count { slots[Int(slot)] = task } else { slots.append(task) }
    if isHeld { held.append(task.token) } else { queue.append(task.token) }
    queuePeak = max(queuePeak, queue.count)
    return task.token
  }

  /// The next task to start; nil when there is none.
  mutating func takeQueued() -> SpawnToken? {
    while let token = queue.popFirst() {
      if queue.isEmpty, queuePeak > Self.queueKeptMax {
        queue = []
        queuePeak = 0
      }
      if isCurrent(token) { return token }
    }
    return nil
  }

  /// Room for queued tasks that is kept when there are none: more than this is rare.
  private static let queueKeptMax = 4096

  /// The generation of the held tasks is live: they may start.
  mutating func queueHeld() {
    queue += held
    queuePeak = max(queuePeak, queue.count)
    held.removeAll()
  }

  /// Reads and changes a task; the token must be current.
  subscript(token: SpawnToken) -> SpawnedTask {
    _read {
      precondition(isCurrent(token), "a spawned task's token outlived it")
      yield slots[Int(token.slot)]
    }
    _modify {
      precondition(isCurrent(token), "a spawned task's token outlived it")
      yield &slots[Int(token.slot)]
    }
  }

  /// Whether the token's task has not ended.
  func isCurrent(_ token: SpawnToken) -> Bool {
    token.generation != 0 && Int(token.slot) < slots.count && slots[Int(token.slot)].token == token
      && slots[Int(token.slot)].run.exists
  }

  /// Forgets a task that has ended; its reference is the caller's to give back.
  mutating func remove(_ token: SpawnToken) {
    precondition(isCurrent(token), "a spawned task ended twice")
    slots[Int(token.slot)].run = .none
    slots[Int(token.slot)].waiters = []
    slots[Int(token.slot)].token.generation = token.generation &+ 1
    // A slot that used all 2^32 is retired, so that no token of a script ever means two tasks.
    if token.generation != .max { free.append(token.slot) }
    count -= 1
  }

  /// The tokens of all tasks that have not started and for which `condition` holds.
  func unstarted(where condition: (SpawnedTask) -> Bool) -> [SpawnToken] {
    if count == 0 { return [] }
    return slots.filter { $0.run.exists && !$0.isRunning && condition($0) }.map(\.token)
  }
}
