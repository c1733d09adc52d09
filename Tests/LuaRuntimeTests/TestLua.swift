// A state with a small library of host functions, one per signature letter and outcome, for the tests of the Lua runtime.

import LuaRuntime

/// What the host functions of one test's state saw and kept.
final class Recorder {
  /// The values of each call, described.
  var calls: [String] = []
  /// References that were handed over.
  var kept: [LuaReference] = []
  /// The state, for functions that call into it while a script runs.
  weak var state: LuaState?
  /// How often a function began to wait.
  var waits = 0
  /// Plain data that was handed over.
  var plain: [PlainData] = []
  /// Bytes and lists that results point at.
  let results = UnsafeMutablePointer<LuaValue>.allocate(capacity: 3)

  /// Where packed results lie: a block of exactly their size and one, so that reading beyond them is noticed.
  var packed = UnsafeMutableRawBufferPointer.allocate(byteCount: 1, alignment: 1)

  deinit {
    results.deallocate()
    packed.deallocate()
  }

  static func of(_ context: UnsafeMutableRawPointer?) -> Recorder {
    Unmanaged<Recorder>.fromOpaque(context!).takeUnretainedValue()
  }

  func record(_ call: HostCall) {
    calls.append((0..<call.argumentCount).map { Self.describe(call[$0]) }.joined(separator: " "))
    for index in 0..<call.argumentCount { if let reference = call[index].asReference { kept.append(reference) } }
  }

  static func describe(_ value: LuaValue) -> String {
    if value.isNil { return "nil" }
    if let flag = value.asBoolean { return "\(flag)" }
    if let connection = value.asConnection { return "connection:\(connection)" }
    if value.asReference != nil { return "function" }
    if let number = value.asInteger { return "\(number)" }
    if let number = value.asNumber { return "\(number)" }
    if let packed = value.asPlain { return "plain:\(packed.count)" }
    return value.asBytes == nil ? "other" : "'\(value.text)'"
  }
}

/// One state with the test library, and the functions of one script.
final class TestLua {
  let lua: LuaState
  let pool: CoroutinePool
  let recorder = Recorder()
  let script: LuaReference

  /// Runs `source`, which gets the natives and the connections' methods and returns a table of functions.
  init(_ source: String, memoryLimitBytes: Int = 0) throws {
    let context = Unmanaged.passUnretained(recorder).toOpaque()
    guard let state = LuaState(context: context, library: Self.offered, memoryLimitBytes: memoryLimitBytes) else {
      throw LuaFailure(message: "no state")
    }
    lua = state
    pool = CoroutinePool(state)
    do {
      let head = "local prelude, native, connection = ...; for name, f in pairs((function() "
      let tail = " end)()) do prelude[name] = f end"
      script = try lua.runPrelude([Array((head + source + tail).utf8)], name: "=script.lua")
    } catch {
      lua.close()
      throw error
    }
  }

  deinit {
    pool.drain()
    lua.close()
  }

  /// Calls a function of the script and describes its results.
  @discardableResult
  func call(
    _ name: StaticString, _ arguments: LuaArguments = LuaArguments(), budgetNanoseconds: UInt64 = 0
  ) throws -> String {
    let function = lua.function(name, of: script)
    defer { lua.release(function) }
    let result: Result<String, LuaFailure> = lua.call(function, arguments, budgetNanoseconds: budgetNanoseconds) {
      if let failure = $0.failure { return .failure(failure) }
      let outcome = $0
      return .success((0..<outcome.count).map { Recorder.describe(outcome[$0]) }.joined(separator: " "))
    }
    return try result.get()
  }

  /// The error that calling a function of the script raises.
  func failure(_ name: StaticString, _ arguments: LuaArguments = LuaArguments()) -> String {
    do {
      return "returned " + (try call(name, arguments))
    } catch {
      return "\(error)"
    }
  }

  /// Starts a function of the script as a handler.
  func start(_ name: StaticString, _ arguments: LuaArguments = LuaArguments()) -> (LuaThread, LuaRun) {
    let function = lua.function(name, of: script)
    defer { lua.release(function) }
    let thread = pool.take()!
    return (thread, pool.start(thread, function, arguments))
  }

  /// Starts a function as a handler that waits, resumes it with each of `values`, and gives its thread back.
  func converse(_ name: StaticString, _ values: [LuaValue], _ arguments: LuaArguments = LuaArguments()) -> String {
    var (thread, run) = start(name, arguments)
    for value in values {
      guard run == .waits else { return "\(run)" }
      run = pool.resume(thread, returning: value)
    }
    return end(thread, run)
  }

  /// Gives a finished thread back, and says how it ended.
  func end(_ thread: LuaThread, _ run: LuaRun) -> String {
    switch run {
    case .returned:
      pool.give(thread)
      return "returned"
    case .failed:
      let message = pool.describe(thread) { $0.text }
      pool.end(thread)
      return message
    case .waits, .yielded:
      pool.end(thread)
      return "\(run)"
    }
  }

  /// A host function for each signature, and one for each outcome.
  static let offered: HostLibrary = {
    let record: HostBody = { Recorder.of($0).record(HostCall($1!)) }
    let wait: HostBody = { context, call in
      Recorder.of(context).waits += 1
      HostCall(call!).waits()
    }
    return HostLibrary([
      HostFunction("c", "c", record), HostFunction("c_optional", "c?", record),
      HostFunction("d", "d", record), HostFunction("d_optional", "d?", record),
      HostFunction("s", "s", record), HostFunction("s_optional", "s?", record),
      HostFunction("i", "i", record), HostFunction("i_optional", "i?", record),
      HostFunction("n", "n", record), HostFunction("n_optional", "n?", record),
      HostFunction("b", "b", record), HostFunction("b_optional", "b?", record),
      HostFunction("f", "f", record), HostFunction("f_optional", "f?", record),
      HostFunction("a", "a", record), HostFunction("a_optional", "a?", record),
      HostFunction("functions", "f?i?f?f?", record),
      HostFunction("strings", "is*") { Recorder.of($0).recordVariadic(HostCall($1!)) },
      HostFunction("messages", "m*") { Recorder.of($0).recordVariadic(HostCall($1!)) },
      HostFunction("wait", "", waits: true, wait),
      HostFunction("connection:wait", "c", waits: true, wait),
      HostFunction("p", "p", record), HostFunction("p_optional", "p?", record),
      HostFunction("p_twice", "pip") {
        let call = HostCall($1!)
        Recorder.of($0).record(call)
        for index in [0, 2] { if let data = PlainData(call[index]) { Recorder.of($0).plain.append(data) } }
      },
      HostFunction("pack", "p*") { context, call in
        let data = PlainData(HostCall(call!)[0])!
        Recorder.of(context).plain.append(data)
        HostCall(call!).returns(.integer(Int64(data.bytes.count)))
      },
      HostFunction("pack_results", "ir*") { Recorder.of($0).plain.append(PlainData(HostCall($1!)[1])!) },
      HostFunction("unpack", "") { context, call in Recorder.of(context).returnPlain(HostCall(call!), first: nil) },
      HostFunction("unpack_behind", "a") { context, call in
        Recorder.of(context).returnPlain(HostCall(call!), first: HostCall(call!)[0])
      },
      HostFunction("connection:number", "c") { HostCall($1!).returns(.integer(HostCall($1!)[0].asConnection ?? 0)) },
      HostFunction("raise", "s") { HostCall($1!).raises(HostCall($1!)[0]) },
      HostFunction("wrong", "ai") { _, call in
        HostCall(call!).raisesTypeError(argument: 2, expected: "a prime number")
      },
      HostFunction("fail", "") { HostCall($1!).fails("out of luck") },
      HostFunction("two", "") { HostCall($1!).returns(.boolean(true), .number(1.5)) },
      HostFunction("three", "") { HostCall($1!).returns(.nil, .text("text"), .integer(-1)) },
      HostFunction("list", "ss") { context, call in
        let call = HostCall(call!)
        let items = Recorder.of(context).results
        items.initialize(to: call[0])
        (items + 1).initialize(to: call[1])
        (items + 2).initialize(to: .bytes(UnsafeRawBufferPointer(start: nil, count: 0)))
        call.returns(.list(UnsafeBufferPointer(start: items, count: 3)))
      },
      HostFunction("kept", "") { HostCall($1!).returns(.reference(Recorder.of($0).kept.last ?? .none)) },
      HostFunction("given", "") { HostCall($1!).returns(.given(Recorder.of($0).kept.removeLast())) },
      HostFunction("nested", "") { context, call in
        let recorder = Recorder.of(context)
        recorder.state?.call(recorder.kept[0]) { HostCall(call!).returns(.boolean($0.failure == nil)) }
      },
      HostFunction("encode", "m*") { context, call in
        let call = HostCall(call!)
        let recorder = Recorder.of(context)
        guard let bytes = call.encoded else { return call.encodes(with: recorder.kept[0], recorder.kept[1]) }
        call.returns(.bytes(bytes))
      },
    ])
  }()
}

extension Recorder {
  /// Returns the last plain data, which stays where it is until the next call.
  func returnPlain(_ call: HostCall, first: LuaValue?) {
    let data = plain.last ?? PlainData(bytes: [], isList: false)
    packed.deallocate()
    packed = .allocate(byteCount: max(data.bytes.count, 1), alignment: 1)
    packed.copyBytes(from: data.bytes)
    let bytes = UnsafeRawBufferPointer(start: packed.baseAddress, count: data.bytes.count)
    let value: LuaValue = data.isList ? .plainList(bytes) : .plain(bytes)
    if let first { call.returns(first, value) } else { call.returns(value) }
  }

  func recordVariadic(_ call: HostCall) {
    let count = call.firstVariadicNotString == nil ? call.variadicCount : 0
    calls.append((0..<count).map { "'\(String(decoding: call.variadic($0), as: UTF8.self))'" }.joined(separator: " "))
  }
}
