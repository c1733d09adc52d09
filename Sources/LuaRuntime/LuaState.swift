// The safe Swift face of one lua_State: opening, protected calls, references, memory and its limit.
// Nothing here can raise a Lua error across Swift; nothing here knows what the scripts are for.

import CLua

/// What the watchdog reports of a run that cannot be ended.
public enum StuckEvent: Sendable {
  /// It is over its budget, or blocked for seconds, and does not come back to Lua code.
  case stuck
  /// It has ended after all.
  case freed
  /// It is past the stuck limit.
  case pastLimit

  /// The event that a `StuckReport` was called with.
  public init(_ event: Int32) {
    switch Int(event) {
    case MP_STUCK: self = .stuck
    case MP_FREED: self = .freed
    default: self = .pastLimit
    }
  }
}

/// Takes a report: the context, the event (see `StuckEvent`), the script's line as text, and for how long the run goes on, in
/// nanoseconds. Called on the watchdog's thread; it must not wait.
public typealias StuckReport =
  @convention(c) (UnsafeMutableRawPointer?, Int32, UnsafePointer<CChar>?, UInt64) -> Void

/// One Lua state, owned by one thread. `close` ends it.
@safe public final class LuaState {
  let state: UnsafeMutablePointer<mp_state>

  /// Opens a state with the standard libraries and the functions of `library`.
  ///
  /// `context` is handed to every one of those functions; `memoryLimitBytes` is the most the state may allocate, 0 for no
  /// limit. Nil when there is not enough memory.
  public init?(context: UnsafeMutableRawPointer?, library: HostLibrary, memoryLimitBytes: Int = 0) {
    guard let opened = unsafe mp_open(context, memoryLimitBytes) else { return nil }
    unsafe state = unsafe opened
    guard unsafe mp_register(opened, library.functions.baseAddress, Int32(library.functions.count)) else {
      unsafe mp_close(opened)
      return nil
    }
  }

  /// What the functions offered to scripts get as their context from now on.
  public func setContext(_ context: UnsafeMutableRawPointer) { unsafe state.pointee.context = unsafe context }

  /// Ends the state: every Lua object is freed, the standard library's finalizers run.
  public func close() { unsafe mp_close(state) }

  /// What the state holds, in bytes.
  public var memoryBytes: Int { unsafe state.pointee.memory.used }

  /// Runs that their CPU budget has ended since the state was opened.
  public var endedRuns: Int { unsafe Int(state.pointee.guard.ended_count) }

  /// How often memory ran out since the state was opened: errors of the soft limit, and allocations refused.
  public var memoryExhaustions: UInt64 { unsafe state.pointee.memory.exhausted &+ state.pointee.memory.refused }

  /// Allocations refused since the state was opened.
  public var refusedAllocations: UInt64 { unsafe state.pointee.memory.refused }

  /// The most the state may allocate, in bytes; 0 for no limit.
  public var memoryLimitBytes: Int {
    get { unsafe state.pointee.memory.limit }
    set { setMemoryLimits(softBytes: softMemoryLimitBytes, hardBytes: newValue) }
  }

  /// Above this many bytes a run that takes much gets the error "not enough memory", unless a collection helps; 0 for no limit.
  public var softMemoryLimitBytes: Int { unsafe state.pointee.memory.soft }

  /// Sets both limits, in bytes; 0 for none.
  public func setMemoryLimits(softBytes: Int, hardBytes: Int) {
    unsafe mp_set_memory_limits(state, softBytes, hardBytes)
  }

  /// Whether memory has run out since the last `recoverMemory`.
  public var wantsMemory: Bool { unsafe state.pointee.memory.wants_collection }

  /// Collects garbage if memory has run out since the last time. Between runs only.
  public func recoverMemory() { unsafe mp_recover_memory(state) }

  /// Whether so much memory was held since the last `collectGarbage` that the system should have it back.
  public var isSwollen: Bool { unsafe state.pointee.memory.is_swollen }

  /// Whether more than half of what the soft limit allows for is in use.
  public var isFull: Bool { unsafe mp_is_full(state) }

  /// Sets the CPU time that one run may take, in nanoseconds (0 = no bound): from where it is started or resumed until it waits,
  /// returns or fails. A run that cannot be ended, in a C function, is reported to `report`, and once more when it has been stuck for
  /// `stuckLimitNanoseconds` (0 = never).
  public func guardRuns(
    budgetNanoseconds: UInt64, stuckLimitNanoseconds: UInt64 = 0, report: StuckReport? = nil,
    context: UnsafeMutableRawPointer? = nil
  ) {
    unsafe mp_guard_runs(state, budgetNanoseconds, stuckLimitNanoseconds, report, context)
  }

  /// Ends the present run, and all later ones until `guardRuns`, as if they were over their budget. For any thread, as long as the
  /// state is open.
  public func endRuns() { unsafe mp_end_runs(state) }

  /// For tests: makes the allocation that many requests from now fail, and all behind it; nil ends that.
  public func failAllocations(after count: Int?) { unsafe state.pointee.memory.fail_after = Int64(count ?? -1) }

  /// Calls the function that `function` refers to on the main thread, where nothing can wait.
  ///
  /// `budgetNanoseconds` of CPU time end it with the error "budget exceeded"; 0 is the budget of all runs. The outcome's values live
  /// until `body` returns.
  public func call<Result>(
    _ function: LuaReference, _ arguments: LuaArguments = LuaArguments(), budgetNanoseconds: UInt64 = 0,
    _ body: (LuaOutcome) -> Result
  ) -> Result {
    var start = arguments.start
    start.function = function.index
    var outcome = mp_outcome()
    unsafe mp_protected_call(state, &start, budgetNanoseconds, &outcome)
    defer { unsafe mp_discard(state, &outcome) }
    return body(LuaOutcome(outcome))
  }

  /// Runs the parts of the prelude in order, each with one table for all, the native table and the methods' table; returns a
  /// reference to the first, into which they put what others need.
  public func runPrelude(_ parts: [[UInt8]], name: StaticString) throws(LuaFailure) -> LuaReference {
    var table = LuaReference.none
    for part in parts {
      if let failure = runPart(part, name, &table.index) {
        release(table)
        throw failure
      }
    }
    return table
  }

  private func runPart(_ source: [UInt8], _ name: StaticString, _ table: inout Int32) -> LuaFailure? {
    var outcome = mp_outcome()
    let chunk = unsafe UnsafeRawPointer(name.utf8Start).assumingMemoryBound(to: CChar.self)
    unsafe source.withUnsafeBytes { bytes in
      let base = unsafe bytes.baseAddress?.assumingMemoryBound(to: CChar.self)
      unsafe mp_run_prelude(state, &table, base, bytes.count, chunk, &outcome)
    }
    defer { unsafe mp_discard(state, &outcome) }
    return LuaOutcome(outcome).failure
  }

  /// A reference to the function in field `name` of a table, or `none`.
  public func function(_ name: StaticString, of table: LuaReference) -> LuaReference {
    let field = unsafe UnsafeRawPointer(name.utf8Start).assumingMemoryBound(to: CChar.self)
    return unsafe LuaReference(index: mp_field_reference(state, table.index, field))
  }

  /// Keeps a result of an outcome, of whatever type; `none` when there is none or memory does not suffice.
  public func keep(_ outcome: LuaOutcome, _ index: Int) -> LuaReference {
    var copy = outcome.outcome
    return unsafe LuaReference(index: mp_keep(state, &copy, Int32(index)))
  }

  /// A string kept in the state; `none` when memory does not suffice.
  public func makeString(_ bytes: UnsafeRawBufferPointer) -> LuaReference {
    let base = unsafe bytes.baseAddress?.assumingMemoryBound(to: CChar.self)
    return unsafe LuaReference(index: mp_string_reference(state, base, bytes.count))
  }

  /// Gives a reference back; the collector may then free the value.
  public func release(_ reference: LuaReference) { unsafe mp_unreference(state, reference.index) }

  /// Runs a full garbage collection. What a swollen state frees goes back to the system. Between runs only.
  public func collectGarbage() { unsafe mp_collect(state) }

  /// Gives what is free already back to the system, without a collection: about 0.1 ms. Between runs only.
  public func giveBack() { unsafe mp_give_back(state) }

  /// Makes the object that scripts see as a connection; `none` when memory does not suffice.
  public func makeConnection(id: Int64, peer: String, address: String) -> LuaReference {
    var peer = peer
    var address = address
    let index = peer.withUTF8 { peerBytes in
      address.withUTF8 { addressBytes in
        unsafe mp_connection_new(
          state, id, UnsafeRawPointer(peerBytes.baseAddress)?.assumingMemoryBound(to: CChar.self), peerBytes.count,
          UnsafeRawPointer(addressBytes.baseAddress)?.assumingMemoryBound(to: CChar.self), addressBytes.count)
      }
    }
    return LuaReference(index: index)
  }
}

/// The arguments of a call into Lua: at most six plain values.
@safe public struct LuaArguments {
  var start = mp_start()

  /// No arguments.
  public init() {}

  /// Up to six arguments, in order.
  public init(_ first: LuaValue) { unsafe append(first) }

  /// Two arguments.
  public init(_ first: LuaValue, _ second: LuaValue) {
    unsafe append(first)
    unsafe append(second)
  }

  /// Adds an argument behind those there are.
  public mutating func append(_ value: LuaValue) {
    precondition(start.count < 6, "more arguments than mp_start holds")
    let index = Int(start.count)
    unsafe withUnsafeMutableBytes(of: &start.arguments) { raw in
      unsafe raw.assumingMemoryBound(to: LuaValue.self)[index] = unsafe value
    }
    start.count += 1
  }
}

/// Asked, with the state's context, for the next message of a running coroutine; `LuaBytes.none` ends the run.
public typealias NextBody = @convention(c) (UnsafeMutableRawPointer?) -> LuaBytes

/// What a protected call left behind. Valid inside the closure it was handed to.
@safe public struct LuaOutcome {
  fileprivate let outcome: mp_outcome

  init(_ outcome: mp_outcome) { self.outcome = outcome }

  /// The error, or nil when the call succeeded.
  public var failure: LuaFailure? { unsafe outcome.status == LUA_OK ? nil : LuaFailure(message: self[0].text) }

  /// How many results there are; at most four are kept.
  public var count: Int { Int(outcome.count) }

  /// The result at `index`, nil beyond the last.
  public subscript(index: Int) -> LuaValue {
    guard index < count else { return unsafe .nil }
    return unsafe withUnsafeBytes(of: outcome.results) { raw in
      unsafe raw.assumingMemoryBound(to: LuaValue.self)[index]
    }
  }
}

/// An error that Lua code raised: the message with position and traceback.
public struct LuaFailure: Error, CustomStringConvertible, Sendable {
  /// Lua's message, with a traceback where there was one.
  public var message: String
  /// A failure with this message.
  public init(message: String) { self.message = message }
  /// The message.
  public var description: String { message }
}
