import LuaRuntime
import Testing

@Suite("The pool of coroutines")
struct CoroutinesTests {
  @Test("a thread that was given back is used again, and costs nothing more")
  func reuse() throws {
    let lua = try TestLua("return { go = function(...) local t = { ... } return #t end }")
    for _ in 0..<10 { #expect(lua.converse("go", []) == "returned") }
    lua.lua.collectGarbage()
    let before = lua.lua.memoryBytes
    for _ in 0..<1000 { #expect(lua.converse("go", []) == "returned") }
    lua.lua.collectGarbage()
    #expect(lua.lua.memoryBytes <= before + 200)
  }

  @Test("threads beyond what the pool keeps are freed, failed and ended ones too")
  func bounded() throws {
    let lua = try TestLua("return { wait = function() native.wait() end, fail = function() error('x') end }")
    lua.lua.collectGarbage()
    let before = lua.lua.memoryBytes
    let waiting = (0..<1000).map { _ in lua.start("wait").0 }
    for (index, thread) in waiting.enumerated() {
      if index % 2 == 0 {
        #expect(lua.end(thread, lua.pool.resume(thread, returning: .nil)) == "returned")
      } else {
        lua.pool.end(thread)
      }
    }
    for _ in 0..<1000 {
      let (thread, run) = lua.start("fail")
      #expect(lua.end(thread, run).hasPrefix("script.lua:1: x\nstack traceback:"))
    }
    lua.pool.drain()
    lua.lua.collectGarbage()
    // What is left is the registry's table, which does not shrink.
    #expect(lua.lua.memoryBytes < before + 50_000)
  }

  @Test("only false itself counts as a refusal")
  func returnedFalse() throws {
    let lua = try TestLua(
      """
      return { no = function() return false end, none = function() end, null = function() return nil end,
        yes = function() return true end, zero = function() return 0, false end }
      """)
    for (name, expected) in [("no", true), ("none", false), ("null", false), ("yes", false), ("zero", false)]
      as [(String, Bool)]
    {
      let (thread, run) =
        name == "no"
        ? lua.start("no")
        : name == "none"
          ? lua.start("none")
          : name == "null"
            ? lua.start("null")
            : name == "yes" ? lua.start("yes") : lua.start("zero")
      #expect(run == .returned)
      #expect(lua.pool.returnedFalse(thread) == expected, "\(name)")
      lua.pool.give(thread)
    }
  }

  @Test("a handler gets its arguments")
  func arguments() throws {
    let lua = try TestLua(
      "return { go = function(a, b, c) native.messages(a, b, c) return native.wait() end }")
    let kept = lua.lua.makeString(UnsafeRawBufferPointer(start: nil, count: 0))
    var arguments = LuaArguments(.text("a"), .integer(2))
    arguments.append(.reference(kept))
    #expect(lua.converse("go", [.nil], arguments) == "returned")
    #expect(lua.recorder.calls == ["'a' '2' ''"])
    lua.lua.release(kept)
  }

  @Test("an error that is no string is described, and one that cannot be is replaced")
  func describe() throws {
    let lua = try TestLua(
      """
      return { table = function() error({}) end, null = function() error() end,
        bad = function() error(setmetatable({}, { __tostring = function() return {} end })) end }
      """)
    for name in ["table", "null", "bad"] {
      let (thread, run) = name == "table" ? lua.start("table") : name == "null" ? lua.start("null") : lua.start("bad")
      let text = lua.end(thread, run)
      #expect(
        text.hasPrefix(
          name == "table"
            ? "(error object is a table value)\nstack"
            : name == "null" ? "(error object is a nil value)\nstack" : "'__tostring' must return"),
        "\(text)")
    }
  }

  @Test("without memory for a traceback the bare message is what is left")
  func describeWithoutMemory() throws {
    let lua = try TestLua("return { fail = function() error('broken') end }")
    let (thread, run) = lua.start("fail")
    #expect(run == .failed)
    for count in 0..<10 {
      lua.lua.failAllocations(after: count)
      let text = lua.pool.describe(thread) { $0.text }
      lua.lua.failAllocations(after: nil)
      #expect(text.hasPrefix("script.lua:1: broken"))
    }
    lua.pool.end(thread)
  }
}
