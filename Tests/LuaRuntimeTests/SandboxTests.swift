import LuaRuntime
import Testing

@Suite("The libraries as scripts get them")
struct SandboxTests {
  /// The error of running `body`, or "returned" and its values.
  private func run(_ body: String) throws -> String {
    let lua = try TestLua("return { go = function(conn) \(body) end }")
    let conn = lua.lua.makeConnection(id: 5, peer: "1.2.3.4:5", address: "1.2.3.4:6")
    defer { lua.lua.release(conn) }
    return lua.failure("go", LuaArguments(.reference(conn)))
  }

  @Test(
    "a metatable with a finalizer is refused wherever one can be set",
    arguments: [
      "setmetatable({}, { __gc = print })", "setmetatable({}, { __gc = true })",
      "debug.setmetatable({}, { __gc = print })",
      "local m = {} local t = setmetatable({}, m) m.__gc = print setmetatable({}, m)",
    ])
  func finalizers(_ body: String) throws {
    #expect(try run(body).contains("a metatable must not have __gc"))
  }

  @Test("a finalizer put into a metatable later is never run")
  func lateFinalizer() throws {
    #expect(
      try run(
        """
        local m, ran = {}, false
        setmetatable({}, m)
        m.__gc = function() ran = true end
        collectgarbage() collectgarbage()
        return ran
        """) == "returned false")
  }

  @Test("setmetatable is Lua's own otherwise")
  func setmetatable() throws {
    #expect(try run("local t, m = {}, {} return setmetatable(t, m) == t, getmetatable(t) == m") == "returned true true")
    #expect(try run("return getmetatable(setmetatable(setmetatable({}, {}), nil))") == "returned nil")
    #expect(
      try run("setmetatable(setmetatable({}, { __metatable = 1 }), {})").contains("cannot change a protected metatable")
    )
    #expect(
      try run("setmetatable({})").contains("bad argument #2 to 'setmetatable' (nil or table expected, got no value)"))
    #expect(try run("setmetatable(1, {})").contains("bad argument #1 to 'setmetatable' (table expected, got number)"))
    #expect(
      try run(
        "local t, m = setmetatable({}, { __metatable = 1 }), {} debug.setmetatable(t, m) return debug.getmetatable(t) == m"
      ) == "returned true")
  }

  @Test(
    "metatables that are everybody's can be read and not changed",
    arguments: [
      "getmetatable('')", "debug.getmetatable('')", "getmetatable(io.stdout)", "debug.getmetatable(io.stdout)",
    ])
  func shared(_ metatable: String) throws {
    #expect(try run("return type(\(metatable).__index)") == "returned 'table'")
    for body in ["\(metatable).__index = nil", "\(metatable).__gc = print", "\(metatable).__add = print"] {
      #expect(try run(body).contains("it cannot be changed"), "\(body)")
    }
    #expect(try run("rawset(\(metatable), '__index', {}) return ('x'):upper()") == "returned 'X'")
    #expect(
      try run("debug.getmetatable(\(metatable)).__index.__index = nil return ('x'):upper(), io.stdout:seek() ~= 0")
        .hasPrefix("returned 'X'"))
  }

  @Test(
    "only tables get another metatable",
    arguments: ["''", "1", "nil", "true", "print", "io.stdout", "coroutine.create(print)", "conn"])
  func otherTypes(_ value: String) throws {
    #expect(try run("debug.setmetatable(\(value), {})").contains("only a table's metatable can be changed"))
  }

  @Test("variables of C functions and of the server's own are nobody else's")
  func upvalues() throws {
    #expect(try run("local n = 1 local f = function() return n end return debug.getupvalue(f, 1)") == "returned 'n' 1")
    #expect(try run("local n = 1 local f = function() return n end debug.setupvalue(f, 1, 2) return n") == "returned 2")
    #expect(try run("return debug.getupvalue(setmetatable, 1), debug.setupvalue(native.f, 1, 1)") == "returned nil nil")
    #expect(try run("return debug.upvalueid(collectgarbage, 1)") == "returned nil")
    #expect(
      try run("local n = 1 debug.upvaluejoin(function() return n end, 1, setmetatable, 1)").contains("bad argument #3"))
    #expect(try run("debug.getupvalue(1, 1)").contains("bad argument #1"))
  }

  @Test("locals are found at the level that was asked for")
  func locals() throws {
    #expect(try run("local here = 7 return debug.getlocal(1, 2)") == "returned 'here' 7")
    #expect(try run("local here = 7 debug.setlocal(1, 2, 8) return here") == "returned 8")
    #expect(try run("local function f(a) end return debug.getlocal(f, 1)") == "returned 'a'")
    #expect(
      try run(
        "local co = coroutine.create(function(x) coroutine.yield() end) coroutine.resume(co, 9) return debug.getlocal(co, 1, 1)"
      ) == "returned 'x' 9")
    #expect(try run("debug.getlocal(1e9, 1)").contains("level out of range"))
    #expect(try run("debug.getlocal('x', 1)").contains("bad argument #1"))
  }

  @Test("the collector can be tuned and not stopped")
  func collector() throws {
    #expect(try run("collectgarbage('stop')").contains("collectgarbage: \"stop\" would"))
    #expect(
      try run("return collectgarbage(), collectgarbage('count') > 1, collectgarbage('isrunning')")
        == "returned 0 true true")
    #expect(
      try run("return collectgarbage('incremental'), collectgarbage('generational')")
        == "returned 'incremental' 'incremental'")
    #expect(try run("collectgarbage('x')").contains("invalid option"))
  }
}
