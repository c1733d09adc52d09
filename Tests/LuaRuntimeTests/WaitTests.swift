import LuaRuntime
import Testing

@Suite("Waiting")
struct WaitTests {
  /// A script with `log`, a handler `go` of the given body, and `read`, which returns the log.
  private func script(_ body: String, _ helpers: String = "") throws -> TestLua {
    try TestLua(
      """
      local log = {}
      local function say(...) log[#log + 1] = table.concat({ ... }, " ") end
      local wait = native.wait
      \(helpers)
      return { go = function(conn) \(body) end, read = function() return table.concat(log, ", ") end }
      """)
  }

  @Test("a waiting call suspends its handler and returns what it is resumed with, at most three values")
  func returns() throws {
    let lua = try script("say(wait()) local a, b, c = wait() say(tostring(a), b, c) say(select('#', wait()))")
    var (thread, run) = lua.start("go")
    #expect(run == .waits)
    run = lua.pool.resume(thread, returning: .text("first"))
    #expect(run == .waits)
    run = lua.pool.resume(thread, returning: .nil, .text("closed"), .integer(3))
    #expect(run == .waits)
    run = lua.pool.resume(thread, returning: .nil, .text("x"))
    #expect(lua.end(thread, run) == "returned")
    #expect(try lua.call("read") == "'first, nil closed 3, 2'")
    #expect(lua.recorder.waits == 3)
  }

  @Test("a waiting call may raise, which the script can catch")
  func raises() throws {
    let lua = try script("say(select(2, pcall(wait))) wait()")
    var (thread, run) = lua.start("go")
    run = lua.pool.resume(thread, raising: .text("ended"))
    #expect(run == .waits)
    run = lua.pool.resume(thread, raising: .text("ended again"))
    #expect(lua.end(thread, run).contains("ended again\nstack traceback:"))
    #expect(try lua.call("read").contains("ended"))
  }

  @Test(
    "a wait passes through whatever the script has put around it",
    arguments: [
      "say(coroutine.wrap(function() return wait() end)())",
      "say(select(2, coroutine.resume(coroutine.create(function() return wait() end))))",
      "say(coroutine.wrap(function() return coroutine.wrap(function() return coroutine.wrap(wait)() end)() end)())",
      """
      local co = coroutine.create(function(...) return select(2, coroutine.resume(coroutine.create(function(...)
        return select(2, coroutine.resume(coroutine.create(function(...) assert(select("#", ...) == 2) return wait() end), ...))
      end), ...)) end)
      say(select(2, coroutine.resume(co, 1, 2)))
      """,
      "say(select(2, pcall(wait)))",
      "say(select(2, pcall(pcall, wait)) and 'value')",
      "say(select(2, xpcall(function() return wait() end, debug.traceback)))",
      "say(pcall(coroutine.wrap(function() return pcall(function() return wait() end) end)) and 'value')",
      "for value in wait do say(value) break end",
      "for value in coroutine.wrap(function() while true do coroutine.yield(wait()) end end) do say(value) break end",
      "say(setmetatable({}, { __index = function() return wait() end }).x)",
      "say((setmetatable({}, { __add = function() return wait() end }) + 1))",
      "do local x <close> = setmetatable({}, { __close = function() say(wait()) end }) end",
      "say(load('return ...')(wait()))",
    ])
  func passesThrough(_ body: String) throws {
    let lua = try script(body)
    #expect(lua.converse("go", [.text("value")]) == "returned")
    #expect(try lua.call("read") == "'value'")
    // Once more, with everything the first run left behind.
    #expect(lua.converse("go", [.text("value")]) == "returned")
    #expect(try lua.call("read") == "'value, value'")
  }

  @Test("waits and the script's own yields keep apart")
  func ownYields() throws {
    let lua = try script(
      """
      local function numbers() for i = 1, 3 do say(wait()) coroutine.yield(i) end return "end" end
      for n in coroutine.wrap(function() numbers() end) do say(n) end
      local co = coroutine.create(numbers)
      repeat say(select(2, coroutine.resume(co))) until coroutine.status(co) == "dead"
      """)
    let values = (0..<6).map { LuaValue.integer(Int64(10 + $0)) }
    #expect(lua.converse("go", values) == "returned")
    #expect(try lua.call("read") == "'10, 1, 11, 2, 12, 3, 13, 1, 14, 2, 15, 3, end'")
  }

  @Test("a handler that yields by itself goes on where it was")
  func topLevelYield() throws {
    let lua = try script("local a, b = 1, 2 coroutine.yield(a, b) say(a, b) coroutine.yield() say(wait())")
    var (thread, run) = lua.start("go")
    #expect(run == .yielded)
    run = lua.pool.resume(thread, returning: .nil)
    #expect(run == .yielded)
    run = lua.pool.resume(thread, returning: .nil)
    #expect(run == .waits)
    run = lua.pool.resume(thread, returning: .text("x"))
    #expect(lua.end(thread, run) == "returned")
    #expect(try lua.call("read") == "'1 2, x'")
  }

  // MARK: Where nothing can wait

  @Test(
    "a wait where nothing can wait raises a clear error before anything has begun to wait, and all goes on",
    arguments: [
      "table.sort({ 3, 2, 1 }, function(a, b) wait() return a < b end)",
      "('x'):gsub('x', function() wait() end)",
      "table.sort({ 3, 2, 1 }, function(a, b) return coroutine.wrap(function() wait() return a < b end)() end)",
      "('x'):gsub('x', function() assert(coroutine.resume(coroutine.create(function() wait() end))) end)",
      "('x'):gsub('x', function() coroutine.wrap(function() coroutine.wrap(wait)() end)() end)",
      "tostring(setmetatable({}, { __tostring = function() wait() end }))",
      "load(function() wait() end)",
      "table.concat(setmetatable({}, { __len = function() return 1 end, __index = function() wait() end }))",
    ])
  func cannotWait(_ body: String) throws {
    let lua = try script(
      "local _, text = pcall(function() \(body) end) say(tostring(text):match('cannot wait here') or 'no error') say(wait())"
    )
    #expect(lua.converse("go", [.text("on")]) == "returned")
    let log = try lua.call("read")
    #expect(log == "'cannot wait here, on'" || (body.hasPrefix("load") && log == "'no error, on'"))
    #expect(lua.recorder.waits == 1)
  }

  @Test("a wait while the script loads says so, in a coroutine too", arguments: ["wait()", "coroutine.wrap(wait)()"])
  func whileLoading(_ body: String) throws {
    #expect {
      try TestLua("local wait = native.wait \(body) return {}")
    } throws: {
      "\($0)".contains("wait cannot wait here: a script cannot wait while it loads")
    }
  }

  // MARK: Coroutines that wait, touched from elsewhere

  @Test("a coroutine that waits cannot be resumed from elsewhere, and goes on undisturbed")
  func resumedElsewhere() throws {
    let lua = try TestLua(
      """
      local shared, result
      return {
        go = function() shared = coroutine.create(function() return native.wait() end) result = { coroutine.resume(shared) } end,
        intrude = function() return coroutine.status(shared), coroutine.resume(shared) end,
        read = function() return result[1], result[2] end,
      }
      """)
    let (thread, run) = lua.start("go")
    #expect(run == .waits)
    #expect(try lua.call("intrude") == "'suspended' false 'cannot resume a coroutine that waits'")
    #expect(lua.end(thread, lua.pool.resume(thread, returning: .text("value"))) == "returned")
    #expect(try lua.call("read") == "true 'value'")
    #expect(try lua.call("intrude") == "'dead' false 'cannot resume dead coroutine'")
  }

  @Test("a handler's own coroutine cannot be resumed by another while it waits")
  func handlerResumed() throws {
    let lua = try TestLua(
      """
      local own
      return { go = function() own = coroutine.running() return native.wait() end,
        intrude = function() return coroutine.resume(own) end }
      """)
    let (thread, run) = lua.start("go")
    #expect(run == .waits)
    #expect(try lua.call("intrude") == "false 'cannot resume a coroutine that waits'")
    #expect(lua.end(thread, lua.pool.resume(thread, returning: .nil)) == "returned")
  }

  @Test("closing a coroutine that waits closes its variables, and the one that resumed it learns of it")
  func closedElsewhere() throws {
    let lua = try TestLua(
      """
      local shared, log = nil, {}
      return {
        go = function()
          shared = coroutine.create(function()
            local x <close> = setmetatable({}, { __close = function() log[#log + 1] = "closed" end })
            native.wait()
          end)
          local _, text = coroutine.resume(shared)
          log[#log + 1] = text
          native.wait()
        end,
        close = function() return coroutine.close(shared) end,
        read = function() return table.concat(log, ", ") end,
      }
      """)
    let (thread, run) = lua.start("go")
    #expect(run == .waits)
    #expect(try lua.call("close") == "true")
    #expect(lua.converseOn(thread, [.text("value"), .nil]) == "returned")
    #expect(try lua.call("read") == "'closed, cannot resume dead coroutine'")
  }

  @Test("a handler that waits can be ended: its variables are closed, even by functions that fail or would wait")
  func ended() throws {
    let lua = try script(
      """
      local function closer(f) return setmetatable({}, { __close = f }) end
      local a <close> = closer(function() say("a") end)
      local b <close> = closer(function() say(select(2, pcall(wait)):match("cannot wait here")) end)
      local c <close> = closer(function() error("c") end)
      coroutine.wrap(function() wait() end)()
      """)
    for _ in 0..<3 {
      let (thread, run) = lua.start("go")
      #expect(run == .waits)
      lua.pool.end(thread)
    }
    let once = "cannot wait here, a"
    #expect(try lua.call("read") == "'\([once, once, once].joined(separator: ", "))'")
    #expect(lua.recorder.waits == 3)
  }

  @Test("an error after a wait in nested coroutines reaches the handler with its message and line")
  func errorInside() throws {
    let lua = try script(
      """
      local ok, message = pcall(coroutine.wrap(function() coroutine.wrap(function() wait()
        error("inside") end)() end))
      say(ok and "ok" or "failed", message)
      local co = coroutine.create(function() wait() error({ code = 7 }) end)
      local ok, object = coroutine.resume(co)
      say(ok and "ok" or "failed", object.code, coroutine.status(co))
      local ok, message = pcall(coroutine.wrap(function()
        local x <close> = setmetatable({}, { __close = function() error("closing", 0) end }) wait() error("inside") end))
      say(message:match("closing"))
      coroutine.wrap(function() wait() error("last") end)()
      """)
    let end = lua.converse("go", [.nil, .nil, .nil, .nil])
    #expect(end.contains("last\nstack traceback:"))
    let log = try lua.call("read")
    #expect(log.hasPrefix("'failed ") && log.contains("inside, failed 7 dead, closing"))
  }

  @Test("wrap and resume treat errors, arguments and dead coroutines as Lua's own do")
  func asStandard() throws {
    let lua = try TestLua(
      """
      local function check(...) return table.concat({ tostring((...)), tostring((select(2, ...))) }, " ") end
      return {
        dead = function() local f = coroutine.wrap(function() end) f() return check(pcall(f)) end,
        itself = function() return check(coroutine.resume(coroutine.running())) end,
        outer = function() local co co = coroutine.create(function() return coroutine.wrap(function()
          return check(coroutine.resume(co)) end)() end) return select(2, coroutine.resume(co)) end,
        failed = function() local co = coroutine.create(error) coroutine.resume(co, "x") return check(coroutine.resume(co)) end,
        values = function() return select("#", coroutine.wrap(function(...) return ... end)(1, nil, nil)) end,
        wrong = function() return check(pcall(coroutine.resume, 1)) end,
        nothing = function() return check(pcall(coroutine.wrap, 1)) end,
        object = function() local t = {} return select(2, pcall(coroutine.wrap(function() error(t) end))) == t end,
        line = function() return check(pcall(coroutine.wrap(function() error("x") end))) end,
        many = function() return select("#", coroutine.wrap(function(...) return ... end)(("x"):rep(9999):byte(1, -1))) end,
      }
      """)
    #expect(try lua.call("dead").contains("cannot resume dead coroutine"))
    #expect(try lua.call("itself") == "'false cannot resume non-suspended coroutine'")
    #expect(try lua.call("outer") == "'false cannot resume non-suspended coroutine'")
    #expect(try lua.call("failed") == "'false cannot resume dead coroutine'")
    #expect(try lua.call("values") == "3")
    #expect(try lua.call("wrong").contains("coroutine expected"))
    #expect(try lua.call("nothing").contains("function expected"))
    #expect(try lua.call("object") == "true")
    #expect(try lua.call("line").contains("x"))
    #expect(try lua.call("many") == "9999")
  }

  @Test("whichever allocation of a wait in nested coroutines is refused, the handler ends and the state is usable")
  func allocationFailures() throws {
    let lua = try script(
      """
      local co = coroutine.create(function() coroutine.wrap(function() say(wait()) coroutine.yield(1) end)() end)
      say(tostring(coroutine.resume(co)))
      say(tostring(coroutine.resume(co)), tostring(coroutine.resume(co)))
      """, "collectgarbage()")
    var count = 0
    while true {
      lua.lua.failAllocations(after: count)
      guard let thread = lua.pool.take() else {
        count += 1
        continue
      }
      let function = lua.lua.function("go", of: lua.script)
      var run = lua.pool.start(thread, function, LuaArguments())
      if run == .waits { run = lua.pool.resume(thread, returning: .text("value")) }
      let end = lua.end(thread, run)
      lua.lua.release(function)
      lua.lua.failAllocations(after: nil)
      if end == "returned" { break }
      #expect(end.contains("not enough memory") || end.contains("nil value"), "\(end)")
      count += 1
    }
    #expect(count > 5)
    #expect(lua.converse("go", [.text("value")]) == "returned")
  }
}

extension TestLua {
  /// Resumes a waiting thread with each of `values` and gives it back.
  func converseOn(_ thread: LuaThread, _ values: [LuaValue]) -> String {
    var run = LuaRun.waits
    for value in values {
      guard run == .waits else { break }
      run = pool.resume(thread, returning: value)
    }
    return end(thread, run)
  }
}
