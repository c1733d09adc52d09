import LuaRuntime
import Testing

@Suite("Memory limits")
struct MemoryTests {
  private func script(_ body: String, soft: Int = 6 << 20, hard: Int = 10 << 20) throws -> TestLua {
    let lua = try TestLua(
      """
      kept = {}
      return { go = function() \(body) end, ok = function() local t = {} for i = 1, 100 do t[i] = { i } end end, drop = function() kept = {} end }
      """)
    lua.lua.setMemoryLimits(softBytes: soft, hardBytes: hard)
    lua.lua.guardRuns(budgetNanoseconds: 200_000_000)
    return lua
  }

  private func run(_ lua: TestLua, _ name: StaticString) -> String {
    let (thread, run) = lua.start(name)
    defer { lua.lua.recoverMemory() }
    return lua.end(thread, run)
  }

  @Test(
    "a handler that takes too much gets an error, others run on, and all of the memory comes back",
    arguments: [
      "local t = {} for i = 1, 1e9 do t[i] = { i } end",
      "local t = {} for i = 1, 1e9 do t[i] = i end",
      "local t = {} for i = 1, 1e9 do t['k' .. i] = true end",
      "local s = 'x' while true do s = s .. s end",
      "local s = ('x'):rep(1 << 30)",
      "local t = {} for i = 1, 1e9 do t[i] = ('x'):rep(1000) .. i end",
      "local t = {} while true do t = { t } end",
      "local t = {} for i = 1, 1e9 do t[i] = function() return t, i end end",
      "local t = {} for i = 1, 1e9 do t[i] = coroutine.create(print) end",
      "local function f(n) return n + f(n + 1) end f(1)",
      "while true do pcall(function() local t = {} for i = 1, 1e9 do t[i] = { i } end end) end",
      "while true do pcall(string.rep, 'x', 1 << 30) end",
      "while true do coroutine.wrap(pcall)(function() local t = {} for i = 1, 1e9 do t[i] = { i } end end) end",
      "local x <close> = setmetatable({}, { __close = function() kept = {} end }) for i = 1, 1e9 do kept[i] = { i } end",
      "table.concat(setmetatable({}, { __len = function() return 1e9 end, __index = function() return ('x'):rep(1000) end }))",
    ])
  func exhausting(_ body: String) throws {
    let lua = try script(body)
    lua.lua.collectGarbage()
    let before = lua.lua.memoryBytes
    for _ in 0..<3 {
      let message = run(lua, "go")
      #expect(
        message.contains("not enough memory") || message.contains("budget exceeded")
          || message.contains("stack overflow"),
        "\(message)")
      #expect(run(lua, "ok") == "returned")
    }
    lua.lua.collectGarbage()
    // Lua's table of strings is halved by each collection and not given back at once.
    #expect(lua.lua.memoryBytes < before + 1 << 20)
  }

  @Test("the error of the soft limit has the handler's line and traceback, and can be caught")
  func message() throws {
    let lua = try script("\n\nfor i = 1, 1e9 do kept[i] = { i } end")
    let message = run(lua, "go")
    #expect(
      message.hasPrefix(
        "script.lua:4: not enough memory: this worker's scripts are at the --memory-limit\nstack traceback:\n"))
    #expect(message.contains("script.lua:4: in function"))
    #expect(lua.lua.memoryExhaustions > 0)
    let caught = try script(
      "assert(select(2, pcall(function() for i = 1, 1e9 do kept[i] = { i } end end)) == 'not enough memory')")
    #expect(run(caught, "go") == "returned")
  }

  @Test("while one handler's data fills the state, those that take little run on, and one of them can drop it")
  func filled() throws {
    let lua = try script("for i = #kept + 1, 1e9 do kept[i] = { i } end")
    for _ in 0..<3 {
      #expect(run(lua, "go").contains("not enough memory"))
      #expect(run(lua, "ok") == "returned")
    }
    #expect(lua.lua.memoryBytes > 5 << 20)
    #expect(run(lua, "drop") == "returned")
    lua.lua.collectGarbage()
    #expect(lua.lua.memoryBytes < 1 << 20)
  }

  @Test("garbage is collected before anybody gets an error for it")
  func garbage() throws {
    let lua = try script("collectgarbage('setpause', 1000) for i = 1, 3000 do local s = ('x'):rep(10000) .. i end")
    lua.lua.guardRuns(budgetNanoseconds: 0)
    #expect(run(lua, "go") == "returned")
    #expect(lua.lua.memoryExhaustions == 0)
  }

  @Test("the limits can be read and taken away")
  func limits() throws {
    let lua = try script("")
    #expect(lua.lua.softMemoryLimitBytes == 6 << 20)
    #expect(lua.lua.memoryLimitBytes == 10 << 20)
    lua.lua.setMemoryLimits(softBytes: 0, hardBytes: 0)
    #expect(lua.lua.softMemoryLimitBytes == 0)
    #expect(try lua.call("ok") == "")
  }
}
