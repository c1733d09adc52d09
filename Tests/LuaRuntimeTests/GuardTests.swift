import LuaRuntime
import Synchronization
import TestSupport
import Testing

/// What the watchdog reported of a state.
private final class Reports: Sendable {
  private let events = Mutex<[(StuckEvent, String)]>([])

  static let take: StuckReport = { context, event, place, _ in
    let reports = Unmanaged<Reports>.fromOpaque(context!).takeUnretainedValue()
    let text = place.map { String(cString: $0) } ?? ""
    reports.events.withLock { $0.append((StuckEvent(event), text)) }
  }

  var context: UnsafeMutableRawPointer { Unmanaged.passUnretained(self).toOpaque() }

  /// The place of the first report of a kind, once there is one.
  func place(of event: StuckEvent) throws -> String? {
    try eventually("\(event) is reported") { events.withLock { $0.contains { $0.0 == event } } }
    return events.withLock { $0.first { $0.0 == event }?.1 }
  }
}

@Suite("Guarded runs")
struct GuardTests {
  private static let budget: UInt64 = 20_000_000

  /// Endless loops in every disguise, each a handler's body. `loop` loops, `g` is a coroutine made while loading that loops once resumed.
  static let disguises = [
    "loop()",
    "while true do pcall(loop) end",
    "while true do pcall(pcall, loop) end",
    "repeat local ok = pcall(error) until false",
    "xpcall(error, loop)",
    "xpcall(loop, loop)",
    "xpcall(loop, function() return loop() end) loop()",
    "local function f() xpcall(f, f) end while true do f() end",
    "g()",
    "pcall(g) loop()",
    "coroutine.wrap(loop)()",
    "while true do coroutine.resume(coroutine.create(loop)) end",
    "while true do pcall(coroutine.wrap(loop)) end",
    "coroutine.wrap(function() while true do pcall(coroutine.wrap(loop)) end end)()",
    "local co = coroutine.wrap(function() while true do coroutine.yield() end end) while true do co() end",
    "local co = coroutine.create(closes) coroutine.resume(co) coroutine.close(co)",
    "local x <close> = looping",
    "do local x <close> = looping end loop()",
    "local x <close> = looping loop()",
    "local x <close> = looping table.sort({ 3, 2, 1 }, loop)",
    "return setmetatable({}, { __index = loop }).x",
    "setmetatable({}, { __newindex = loop }).x = 1",
    "return setmetatable({}, { __add = loop }) + 1",
    "return setmetatable({}, { __eq = loop }) == setmetatable({}, { __eq = loop })",
    "return tostring(setmetatable({}, { __tostring = loop }))",
    "error(setmetatable({}, { __tostring = loop }))",
    "for _ in pairs(setmetatable({}, { __pairs = loop })) do end",
    "return #setmetatable({}, { __len = loop })",
    "('aaa'):gsub('a', loop)",
    "('aaa'):gsub('a', setmetatable({}, { __index = loop }))",
    "table.sort({ 3, 2, 1 }, loop)",
    "table.concat(setmetatable({}, { __len = function() return 3 end, __index = loop }))",
    "load(loop)",
    "load(function() return 'x = 1 ' end)",
    "string.format('%s', setmetatable({}, { __tostring = loop }))",
    "local t = setmetatable({}, {}) getmetatable(t).__index = function(t, k) return t[k + 1] end while true do pcall(function() return t[1] end) end",
    "native.f(loop) native.nested() loop()",
    "goto here ::here:: goto here",
    "for i = 1, math.huge do end",
    "local function f() return f() end f()",
    "while true do local s = ('x'):rep(100) .. tostring(s) end",
  ]

  private func script(_ body: String) throws -> TestLua {
    let lua = try TestLua(
      """
      local function loop() while true do end end
      local looping = setmetatable({}, { __close = loop })
      local function closes() local x <close> = looping coroutine.yield() end
      local g = coroutine.wrap(function() coroutine.yield() loop() end) g()
      return { go = function() \(body) end, ok = function() local x <close> = setmetatable({}, { __close = type }) end }
      """)
    lua.recorder.state = lua.lua
    lua.lua.guardRuns(budgetNanoseconds: Self.budget)
    return lua
  }

  @Test(
    "a handler over its budget is ended, whatever hides the loop, and the next ones run in order", arguments: disguises)
  func disguised(_ body: String) throws {
    let lua = try script(body)
    for _ in 0..<2 {
      let (thread, run) = lua.start("go")
      let message = lua.end(thread, run)
      // A generator that an earlier run has ended is dead.
      #expect(message.contains("budget exceeded") || message.contains("dead coroutine"), "\(message)")
      let (next, ok) = lua.start("ok")
      #expect(lua.end(next, ok) == "returned")
    }
    #expect(lua.lua.endedRuns >= 1)
    #expect(throws: LuaFailure.self) { try lua.call("go") }
    #expect(try lua.call("ok") == "")
  }

  @Test("the error says what was exceeded, which option sets it, and where the handler was")
  func message() throws {
    let lua = try script("\n\nlocal function inner() while true do end end\npcall(inner)")
    let (thread, run) = lua.start("go")
    let message = lua.end(thread, run)
    #expect(
      message.hasPrefix(
        "script.lua:7: budget exceeded: ran for 0.02 s of CPU time without waiting; see --handler-budget\nstack traceback:\n"
      ))
    #expect(message.contains("script.lua:7: in function <script.lua:7>"))
    #expect(message.contains("in function 'pcall'"))
    let failure = #expect(throws: LuaFailure.self) { try lua.call("go", budgetNanoseconds: Self.budget) }
    #expect("\(String(describing: failure))".contains("see --load-budget"))
  }

  @Test("a __close function that loops in a handler that failed is ended too")
  func closing() throws {
    let lua = try script("local x <close> = looping error('first')")
    let (thread, run) = lua.start("go")
    #expect(lua.end(thread, run).contains("first"))
    #expect(lua.lua.endedRuns == 1)
    let (suspended, waits) = try waiting("local x <close> = looping native.wait()")
    #expect(suspended.end(waits.0, waits.1) == "waits")
    #expect(suspended.lua.endedRuns == 1)
  }

  private func waiting(_ body: String) throws -> (TestLua, (LuaThread, LuaRun)) {
    let lua = try script(body)
    return (lua, lua.start("go"))
  }

  @Test("the budget is for the time between two waits, not for a handler as a whole")
  func perRun() throws {
    let lua = try script("for _ = 1, 6 do local e = os.clock() + 0.008 repeat until os.clock() > e native.wait() end")
    var (thread, run) = lua.start("go")
    for _ in 0..<6 {
      #expect(run == .waits)
      run = lua.pool.resume(thread, returning: .nil)
    }
    #expect(lua.end(thread, run) == "returned")
    #expect(lua.lua.endedRuns == 0)
  }

  @Test("coroutines that outlive a run that was ended go on in later runs")
  func survivors() throws {
    let lua = try TestLua(
      """
      local count = 0
      local g = coroutine.wrap(function() while true do count = count + 1 coroutine.yield(count) end end)
      return { go = function() while true do g() end end, ok = function() return g() > 0 end }
      """)
    lua.lua.guardRuns(budgetNanoseconds: Self.budget)
    let (thread, run) = lua.start("go")
    #expect(lua.end(thread, run).contains("budget exceeded"))
    // The run may have been ended inside the generator, which is dead then.
    let outcome = lua.failure("ok")
    #expect(outcome == "returned true" || outcome.contains("cannot resume dead coroutine"), "\(outcome)")
  }

  @Test("a coroutine that the budget has ended is dead, and closing it says why without running its code")
  func ended() throws {
    let lua = try TestLua(
      """
      local closed = 0
      local co = coroutine.create(function()
        local x <close> = setmetatable({}, { __close = function() closed = closed + 1 while true do end end })
        table.sort({ 3, 2, 1 }, function() while true do end end)
      end)
      return {
        go = function() coroutine.resume(co) end,
        close = function() return coroutine.status(co), coroutine.close(co), select(2, coroutine.close(co)), closed end,
      }
      """)
    lua.lua.guardRuns(budgetNanoseconds: Self.budget)
    let (thread, run) = lua.start("go")
    #expect(lua.end(thread, run).contains("budget exceeded"))
    #expect(try lua.call("close") == "'dead' false 'not enough memory' 0")
  }

  @Test("without a budget nothing is ended")
  func none() throws {
    let lua = try script("local e = os.clock() + 0.1 repeat until os.clock() > e")
    lua.lua.guardRuns(budgetNanoseconds: 0)
    let (thread, run) = lua.start("go")
    #expect(lua.end(thread, run) == "returned")
  }

  @Test("any number of coroutines whose closing closes the next ends with an error and not the process")
  func chained() throws {
    let lua = try TestLua(
      """
      local function chain(n)
        local last
        for _ = 1, n do
          local next = last
          last = coroutine.create(function()
            local x <close> = setmetatable({}, { __close = function() if next then assert(coroutine.close(next)) end end })
            coroutine.yield()
          end)
          coroutine.resume(last)
        end
        return coroutine.close(last)
      end
      return { few = function() return chain(50) end, many = function() return chain(50000) end }
      """)
    #expect(try lua.call("few") == "true")
    let many = try lua.call("many")
    #expect(many.hasPrefix("false") && many.contains("C stack overflow"), "\(many)")
    let (thread, run) = lua.start("many")
    #expect(lua.end(thread, run) == "returned")
  }

  // MARK: Stuck in C

  /// A pattern that takes seconds: twice as long for each step of `n`.
  private static func bomb(_ n: Int) -> String { "('a'):rep(\(n)):match(('a?'):rep(\(n)) .. ('a'):rep(\(n)))" }

  @Test(
    "a run that is stuck in a C function is reported with the script's line, past its limit once more, and when it ends"
  )
  func stuck() throws {
    let reports = Reports()
    let lua = try script("\n\n\(Self.bomb(26)) while true do end")
    lua.lua.guardRuns(
      budgetNanoseconds: Self.budget, stuckLimitNanoseconds: 2 * Self.budget, report: Reports.take,
      context: reports.context)
    let (thread, run) = lua.start("go")
    #expect(lua.end(thread, run).contains("budget exceeded"))
    #expect(try reports.place(of: .stuck) == "script.lua:7")
    #expect(try reports.place(of: .pastLimit) == "script.lua:7")
    #expect(try reports.place(of: .freed) == "script.lua:7")
    lua.lua.guardRuns(budgetNanoseconds: 0)
  }
}
