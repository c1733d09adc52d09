// Suspended coroutines by token: the Lua thread, what it waits for, and whose it is. A coroutine that never waits is never
// entered here. Plain data: starting and resuming is the worker's.

import CompletionIO
import LuaRuntime

/// Slot and generation of a suspended task; one that outlived its task is recognised.
struct TaskToken: Equatable, Sendable {
  var slot: UInt32
  var generation: UInt32
  static let none = TaskToken(slot: 0, generation: 0)
}

/// What a coroutine runs.
enum TaskKind: UInt8 {
  /// on_open
  case open
  /// on_message
  case message
  /// Any other handler.
  case event
  /// on_error itself, whose own error is only logged, with the one it was told of.
  case errorHandler
  /// A timer's function.
  case timer
  /// What moonport.spawn was given.
  case spawned
}

/// Why a task is to end before its function returns; every further wait of it raises that.
enum TaskEnding: UInt8 {
  /// It is not.
  case none
  /// Its code was replaced long enough ago.
  case reloaded
  /// The script cancelled it.
  case cancelled

  /// As scripts get it.
  var text: StaticString { self == .cancelled ? "cancelled" : "reloaded" }
}

/// What `receive` asked for.
enum ReceiveRequest {
  /// The next message of the codec.
  case message
  /// So many bytes.
  case exactly(Int)
  /// Bytes up to LF.
  case line
  /// Everything until the peer ends.
  case all
}

/// What a suspended task waits for.
enum TaskWait {
  /// Not suspended.
  case nothing
  /// Bytes of a connection.
  case receive(HandleKey, ReceiveRequest)
  /// Only its deadline.
  case sleep
  /// The next turn: the script yielded by itself.
  case turn
  /// An answer from elsewhere, until the wait's deadline.
  case answer(AnswerSource)
}

/// Whose coroutine runs.
struct TaskOwner {
  var kind: TaskKind
  /// The connection whose handler it is; `.none` for the worker's own.
  var connection: HandleKey
  /// Which of the errors told it is, for on_error.
  var report: UInt32 = 0
  /// Number of the code generation it belongs to.
  var codeGeneration: Int
  /// The timer that it runs for.
  var timer: TimerToken = .none
  /// The spawned task that it is.
  var spawned: SpawnToken = .none
}

/// One suspended coroutine.
struct SuspendedTask {
  var token: TaskToken
  var thread: LuaThread?
  var owner: TaskOwner
  var wait = TaskWait.nothing
  /// Which of its waits this is, so that an answer that comes too late for one is not taken for another's.
  var waitNumber: UInt32 = 0
  var deadline = DeadlineKey.none
  /// Set once it is to end.
  var ending = TaskEnding.none
  /// It waited for the end of a pipe when it was told so: the pipe goes on, and that the task ends is no error.
  var endsInPipe = false
  /// Waits that raised since then.
  var refusedWaits: UInt16 = 0
}

/// The table. Owned by the worker's thread.
struct TaskTable: ~Copyable {
  private var slots: [SuspendedTask] = []
  private var free: [UInt32] = []
  private(set) var count = 0

  /// Tasks that one worker may have suspended: a Lua thread of 1 KB each makes 1 GB.
  static let tasksMax = 1 << 20

  init() {}

  /// A token for a coroutine that is about to wait for the first time; nil at the bound.
  mutating func insert(_ owner: TaskOwner) -> TaskToken? {
    guard count < Self.tasksMax else { return nil }
    count += 1
    if let slot = free.popLast() {
      let token = TaskToken(slot: slot, generation: slots[Int(slot)].token.generation &+ 1)
      slots[Int(slot)] = SuspendedTask(token: token, thread: nil, owner: owner)
      return token
    }
    let token = TaskToken(slot: UInt32(slots.count), generation: 1)
    slots.append(SuspendedTask(token: token, thread: nil, owner: owner))
    return token
  }

  /// Reads and changes a task; the token must be current.
  subscript(token: TaskToken) -> SuspendedTask {
    _read {
      precondition(isCurrent(token), "a task's token outlived it")
      yield slots[Int(token.slot)]
    }
    _modify {
      precondition(isCurrent(token), "a task's token outlived it")
      yield &slots[Int(token.slot)]
    }
  }

  /// Whether the token's task still exists.
  func isCurrent(_ token: TaskToken) -> Bool {
    token.generation != 0 && Int(token.slot) < slots.count && slots[Int(token.slot)].token == token
  }

  /// Frees the token of a task that has finished.
  mutating func remove(_ token: TaskToken) {
    precondition(isCurrent(token), "a task ended twice")
    slots[Int(token.slot)].token.generation &+= 1
    if slots[Int(token.slot)].token.generation == 0 { slots[Int(token.slot)].token.generation = 1 }
    slots[Int(token.slot)].thread = nil
    slots[Int(token.slot)].wait = .nothing
    free.append(token.slot)
    count -= 1
  }

  /// The tokens of all suspended tasks for which `condition` holds.
  func tokens(where condition: (SuspendedTask) -> Bool) -> [TaskToken] {
    slots.filter { $0.thread != nil && condition($0) }.map(\.token)
  }

  /// How many suspended tasks run code older than `generation`.
  func count(olderThan generation: Int) -> Int {
    count == 0 ? 0 : slots.reduce(0) { $0 + ($1.thread != nil && $1.owner.codeGeneration < generation ? 1 : 0) }
  }
}
