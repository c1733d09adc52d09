// Coroutines that run handlers: starting, resuming and ending Lua threads, and a pool of idle ones.
// A handler that returns gives its thread back; one that waits keeps it. Knows nothing of why a handler waits.

import CLua

/// A Lua thread (manual section 2.6) anchored in the registry of its state.
@safe public struct LuaThread {
  fileprivate let thread: OpaquePointer
  fileprivate let reference: Int32
}

/// How a run of a coroutine ended.
public enum LuaRun: Sendable {
  /// The function returned; the thread still holds its results.
  case returned
  /// A function of ours suspended it.
  case waits
  /// The script itself yielded.
  case yielded
  /// It raised an error; `CoroutinePool.describe` has the message.
  case failed
}

/// The threads of one state. Owned by the state's thread.
@safe public final class CoroutinePool {
  private let lua: LuaState
  private let state: UnsafeMutablePointer<mp_state>
  private var idle: [LuaThread] = []

  /// Idle threads kept: a thread costs about 1 KB, and more than this many handlers rarely run at once.
  private static let idleThreadsMax = 256

  /// A pool of threads of `lua`.
  public init(_ lua: LuaState) {
    self.lua = lua
    unsafe state = unsafe lua.state
    idle.reserveCapacity(Self.idleThreadsMax)
  }

  /// An idle thread; nil when memory does not suffice.
  public func take() -> LuaThread? {
    if let thread = idle.popLast() { return thread }
    var reference: Int32 = 0
    guard let thread = unsafe mp_thread_new(state, &reference) else { return nil }
    return unsafe LuaThread(thread: thread, reference: reference)
  }

  /// Takes back a thread whose function returned.
  public func give(_ thread: LuaThread) {
    unsafe mp_thread_clear(thread.thread)
    if idle.count < Self.idleThreadsMax {
      idle.append(thread)
    } else {
      unsafe mp_unreference(state, thread.reference)
    }
  }

  /// Ends a thread that failed or waits; its pending to-be-closed variables are closed.
  public func end(_ thread: LuaThread) { unsafe mp_thread_end(state, thread.thread, thread.reference) }

  /// Starts `function` on an idle thread.
  public func start(_ thread: LuaThread, _ function: LuaReference, _ arguments: LuaArguments) -> LuaRun {
    var start = arguments.start
    start.function = function.index
    return unsafe classify(mp_thread_start(state, thread.thread, &start), thread)
  }

  /// Starts `function` with a connection's object and its message on an idle thread. Each time the function has returned without
  /// having waited, `next` is asked for another message.
  public func startMessages(
    _ thread: LuaThread, _ function: LuaReference, _ object: LuaReference, _ first: LuaBytes, next: @escaping NextBody
  ) -> LuaRun {
    var messages = unsafe mp_messages(function: function.index, object: object.index, first: first, next: next)
    return unsafe classify(mp_thread_start_messages(state, thread.thread, &messages), thread)
  }

  /// Resumes a waiting thread: the call it waits in returns `results` (at most four).
  public func resume(
    _ thread: LuaThread, returning first: LuaValue, _ second: LuaValue? = nil, _ third: LuaValue? = nil,
    _ fourth: LuaValue? = nil
  ) -> LuaRun {
    let call = unsafe HostCall(wake())
    unsafe state.pointee.wake.outcome = Int32(MP_RETURN)
    if let fourth = unsafe fourth {
      unsafe call.returns(first, second ?? .nil, third ?? .nil, fourth)
    } else if let third = unsafe third {
      unsafe call.returns(first, second ?? .nil, third)
    } else if let second = unsafe second {
      unsafe call.returns(first, second)
    } else {
      unsafe call.returns(first)
    }
    return unsafe classify(mp_thread_resume(state, thread.thread), thread)
  }

  /// Resumes a waiting thread: the call it waits in raises `message`.
  public func resume(_ thread: LuaThread, raising message: LuaValue) -> LuaRun {
    unsafe HostCall(wake()).raises(message)
    return unsafe classify(mp_thread_resume(state, thread.thread), thread)
  }

  private func wake() -> UnsafeMutablePointer<mp_call> {
    let offset = unsafe MemoryLayout<mp_state>.offset(of: \mp_state.wake)!
    return unsafe UnsafeMutableRawPointer(state).advanced(by: offset).assumingMemoryBound(to: mp_call.self)
  }

  private func classify(_ status: Int32, _ thread: LuaThread) -> LuaRun {
    switch status {
    case LUA_OK: .returned
    case LUA_YIELD: unsafe mp_thread_waits(thread.thread) ? .waits : .yielded
    default: .failed
    }
  }

  /// After `.returned`: whether the first result is `false`.
  public func returnedFalse(_ thread: LuaThread) -> Bool { unsafe mp_thread_returned_false(thread.thread) }

  /// After `.failed`: the error's message with a traceback, valid inside `body`.
  public func describe<Result>(_ thread: LuaThread, _ body: (LuaValue) -> Result) -> Result {
    var outcome = mp_outcome()
    unsafe mp_thread_describe(state, thread.thread, &outcome)
    defer { unsafe mp_discard(state, &outcome) }
    return unsafe body(LuaOutcome(outcome)[0])
  }

  /// Frees the idle threads.
  public func drain() {
    for thread in idle { unsafe mp_unreference(state, thread.reference) }
    idle.removeAll()
  }
}
