// The timers that scripts set: function, interval and generation. When they are due is kept by the worker's deadlines.

import CompletionIO
import LuaRuntime

/// Slot and generation of a timer.
struct TimerToken: Equatable {
  var slot: UInt32
  var generation: UInt32
  static let none = TimerToken(slot: 0, generation: 0)

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

/// One timer.
struct ScriptTimer {
  var token: TimerToken
  var function: LuaReference
  /// 0 for a timer that runs once.
  var intervalNanoseconds: UInt64
  var codeGeneration: Int
  var dueAt: UInt64
  var deadline = DeadlineKey.none
  /// Its function runs or is suspended.
  var isRunning = false
}

/// The table. Owned by the worker's thread.
struct TimerTable: ~Copyable {
  private var slots: [ScriptTimer] = []
  private var free: [UInt32] = []
  private(set) var count = 0

  /// Timers of one worker: 100 bytes each make 100 MB.
  static let timersMax = 1 << 20

  init() {}

  /// Enters a timer; nil at the bound.
  mutating func insert(
    _ function: LuaReference, intervalNanoseconds: UInt64, codeGeneration: Int, dueAt: UInt64
  ) -> TimerToken? {
    guard count < Self.timersMax else { return nil }
    count += 1
    let slot = free.popLast() ?? UInt32(slots.count)
    let generation = Int(slot) < slots.count ? slots[Int(slot)].token.generation : 1
    let timer = ScriptTimer(
      token: TimerToken(slot: slot, generation: generation), function: function,
      intervalNanoseconds: intervalNanoseconds, codeGeneration: codeGeneration, dueAt: dueAt)
    if Int(slot) < slots.count { slots[Int(slot)] = timer } else { slots.append(timer) }
    return timer.token
  }

  /// Reads and changes a timer; the token must be current.
  subscript(token: TimerToken) -> ScriptTimer {
    get { slots[Int(token.slot)] }
    set { slots[Int(token.slot)] = newValue }
  }

  /// Whether the timer still exists.
  func isCurrent(_ token: TimerToken) -> Bool {
    token.generation != 0 && Int(token.slot) < slots.count && slots[Int(token.slot)].token == token
      && slots[Int(token.slot)].function.exists
  }

  /// Forgets a timer; its reference and deadline are the caller's to give back.
  mutating func remove(_ token: TimerToken) {
    precondition(isCurrent(token), "a timer ended twice")
    slots[Int(token.slot)].function = .none
    slots[Int(token.slot)].token.generation = token.generation &+ 1
    // A slot that used all 2^32 is retired, so that no token of a script ever means two timers.
    if token.generation != .max { free.append(token.slot) }
    count -= 1
  }

  /// The tokens of all timers for which `condition` holds.
  func tokens(where condition: (ScriptTimer) -> Bool) -> [TimerToken] {
    slots.filter { $0.function.exists && condition($0) }.map(\.token)
  }
}

/// What a deadline of a worker is for, in the 64 bits that `Deadlines` carries.
enum DeadlinePurpose {
  case connection(HandleKey)
  case task(TaskToken)
  case timer(TimerToken)
  /// The share of one address in a connect, by its socket.
  case connect(HandleKey)
  /// Memory is given back.
  case memory

  /// Kind in the four highest bits, then 32 of generation, then 24 of slot.
  var payload: UInt64 {
    switch self {
    case .connection(let key): Self.pack(0, key.slot, key.generation)
    case .task(let token): Self.pack(1, token.slot, token.generation)
    case .timer(let token): Self.pack(2, token.slot, token.generation)
    case .connect(let key): Self.pack(3, key.slot, key.generation)
    case .memory: Self.pack(4, 0, 0)
    }
  }

  init(payload: UInt64) {
    let slot = UInt32(payload & 0xff_ffff)
    let generation = UInt32(truncatingIfNeeded: payload >> 24)
    switch payload >> 60 {
    case 0: self = .connection(HandleKey(slot: slot, generation: generation))
    case 1: self = .task(TaskToken(slot: slot, generation: generation))
    case 2: self = .timer(TimerToken(slot: slot, generation: generation))
    case 3: self = .connect(HandleKey(slot: slot, generation: generation))
    default: self = .memory
    }
  }

  private static func pack(_ kind: UInt64, _ slot: UInt32, _ generation: UInt32) -> UInt64 {
    kind << 60 | UInt64(generation) << 24 | UInt64(slot)
  }
}
