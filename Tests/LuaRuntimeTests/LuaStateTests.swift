import LuaRuntime
import Testing

@Suite("A Lua state")
struct LuaStateTests {
  @Test("a script's functions are found by name, called with values, and return values")
  func calls() throws {
    let lua = try TestLua("return { join = function(a, b) return b, a, nil, 1.5, true, 'lost' end, n = 1 }")
    #expect(try lua.call("join", LuaArguments(.integer(1), .text("two"))) == "'two' 1 nil 1.5")
    #expect(!lua.lua.function("n", of: lua.script).exists)
    #expect(!lua.lua.function("missing", of: lua.script).exists)
  }

  @Test("a script that does not compile names its line")
  func syntaxError() {
    #expect {
      try TestLua("\nlocal x = = 1")
    } throws: {
      "\($0)".hasPrefix("script.lua:2: unexpected symbol near '='")
    }
  }

  @Test("an error carries the script's file and line, and the traceback of its calls")
  func traceback() throws {
    let lua = try TestLua(
      """
      local function inner() error("broken") end
      return { fail = function() inner() end, table = function() error({}) end,
        named = function() error(setmetatable({}, { __tostring = function() return "named" end })) end,
        bad = function() error(setmetatable({}, { __tostring = function() error("again") end })) end }
      """)
    let failure = lua.failure("fail")
    #expect(failure.hasPrefix("script.lua:1: broken\nstack traceback:"))
    #expect(failure.contains("script.lua:2: in function"))
    #expect(lua.failure("table").hasPrefix("script.lua:2: (error object is a table value)\nstack traceback:"))
    #expect(lua.failure("named").hasPrefix("script.lua:3: named\nstack traceback:"))
    #expect(lua.failure("bad").contains("again"))
    #expect(lua.failure("fail") == failure)
  }

  @Test("a stack overflow and an error in an error handler are errors like others")
  func overflow() throws {
    let lua = try TestLua(
      """
      local function deep() return 1 + deep() end
      local function wrapped() return coroutine.wrap(wrapped)() end
      local function matched() return (("x"):gsub("x", matched)) end
      return { deep = deep, wrapped = function() local function w() return coroutine.wrap(w)() end return w() end,
        matched = function() local function m() return (("x"):gsub("x", m)) end return m() end,
        handler = function() return xpcall(deep, function(e) return 1 + deep() end) end }
      """)
    for _ in 0..<3 {
      #expect(lua.failure("deep").contains("stack overflow"))
      #expect(lua.failure("wrapped").contains("C stack overflow"))
      #expect(lua.failure("matched").contains("C stack overflow"))
      #expect(lua.failure("handler").hasPrefix("returned false"))
    }
    let (thread, run) = lua.start("wrapped")
    #expect(lua.end(thread, run).contains("C stack overflow"))
  }

  // MARK: The budget

  @Test(
    "the budget ends an endless loop, also one that catches its error again and again",
    arguments: [
      "while true do end",
      "while true do pcall(function() while true do end end) end",
      "while true do pcall(pcall, function() while true do end end) end",
      "local function f() xpcall(f, f) end while true do f() end",
      "while true do pcall(coroutine.wrap(function() while true do end end)) end",
      "coroutine.wrap(function() while true do pcall(coroutine.wrap(function() while true do end end)) end end)()",
      "while true do coroutine.resume(coroutine.create(function() while true do end end)) end",
      "repeat local ok = pcall(error) until false",
    ])
  func budget(_ loop: String) throws {
    let lua = try TestLua("return { loop = function() \(loop) end, ok = function() return 1 end }")
    #expect {
      try lua.call("loop", budgetNanoseconds: 20_000_000)
    } throws: {
      "\($0)".contains("budget exceeded")
    }
    #expect(try lua.call("ok", budgetNanoseconds: 20_000_000) == "1")
  }

  @Test("a call without a budget inside one with a budget does not end the budget")
  func nestedBudget() throws {
    let lua = try TestLua(
      """
      native.f(function() return 1 end)
      return { loop = function() native.nested() while true do end end }
      """)
    lua.recorder.state = lua.lua
    #expect {
      try lua.call("loop", budgetNanoseconds: 20_000_000)
    } throws: {
      "\($0)".contains("budget exceeded")
    }
  }

  @Test("a generator made before the budget began is held to it too")
  func olderCoroutine() throws {
    let lua = try TestLua(
      "local g = coroutine.wrap(function() coroutine.yield() while true do end end) g() return { go = function() g() end }"
    )
    #expect {
      try lua.call("go", budgetNanoseconds: 20_000_000)
    } throws: {
      "\($0)".contains("budget exceeded")
    }
  }

  // MARK: Memory

  @Test("over the memory limit a script gets an error that it can catch, and the state goes on")
  func memoryLimit() throws {
    let lua = try TestLua(
      """
      local function grow() local t = {} for i = 1, 1e7 do t[i] = ("x"):rep(1000) .. i end end
      return { grow = grow, catch = function() return pcall(grow) end, ok = function() return #("x"):rep(1000) end }
      """, memoryLimitBytes: 4 << 20)
    #expect(lua.failure("grow").contains("not enough memory"))
    #expect(try lua.call("catch") == "false 'not enough memory'")
    lua.lua.collectGarbage()
    #expect(try lua.call("ok") == "1000")
    #expect(lua.lua.refusedAllocations > 0)
    #expect(lua.lua.memoryBytes < 4 << 20)
    lua.lua.memoryLimitBytes = 0
    #expect(lua.lua.memoryLimitBytes == 0)
  }

  @Test("a state that may not hold the standard libraries is not opened")
  func tooSmall() {
    for limit in [1, 1000, 5000, 10000] {
      #expect(LuaState(context: nil, library: TestLua.offered, memoryLimitBytes: limit) == nil)
    }
  }

  @Test("opening fails cleanly whichever allocation is refused")
  func openingUnderAnyLimit() {
    var limit = 500
    while limit < 1 << 20 {
      if let lua = LuaState(context: nil, library: TestLua.offered, memoryLimitBytes: limit) {
        lua.close()
        return
      }
      limit += 61
    }
    Issue.record("a state never opened")
  }

  // MARK: References

  @Test("references keep values, and memory comes back with them")
  func references() throws {
    let lua = try TestLua(
      "return { make = function() return { ('x'):rep(100000) } end, size = function(t) return #t[1] end }")
    let make = lua.lua.function("make", of: lua.script)
    lua.lua.collectGarbage()
    let before = lua.lua.memoryBytes
    for _ in 0..<3 {
      let table = lua.lua.call(make) { lua.lua.keep($0, 0) }
      #expect(table.exists)
      lua.lua.collectGarbage()
      #expect(try lua.call("size", LuaArguments(.reference(table))) == "100000")
      #expect(lua.lua.memoryBytes > before + 90000)
      lua.lua.release(table)
      lua.lua.collectGarbage()
    }
    #expect(lua.lua.memoryBytes <= before + 1000)
    #expect(!lua.lua.call(make, LuaArguments(), { lua.lua.keep($0, 3) }).exists)
    lua.lua.release(.none)
  }

  @Test("a string made for Lua has the bytes it was made of, zero bytes and none included")
  func strings() throws {
    let lua = try TestLua("return { bytes = function(s) return #s, s:byte(1, 2) end }")
    for bytes in [[], [0], [0, 255], Array("text".utf8)] as [[UInt8]] {
      let reference = bytes.withUnsafeBytes { lua.lua.makeString($0) }
      let expected = ([bytes.count] + bytes.prefix(2).map(Int.init)).map(String.init).joined(separator: " ")
      #expect(try lua.call("bytes", LuaArguments(.reference(reference))) == expected)
      lua.lua.release(reference)
    }
    #expect(try lua.call("bytes", LuaArguments(.bytes(UnsafeRawBufferPointer(start: nil, count: 0)))) == "0")
  }
}
