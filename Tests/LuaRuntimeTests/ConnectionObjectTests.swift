import LuaRuntime
import Testing

@Suite("A connection object")
struct ConnectionObjectTests {
  /// Runs `body` with a connection and returns what it returns or raises.
  private func run(_ body: String) throws -> String {
    let lua = try TestLua("return { go = function(conn, other)\n\(body) end }")
    let conn = lua.lua.makeConnection(id: 1 << 40, peer: "127.0.0.1:5", address: "unix:é")
    let other = lua.lua.makeConnection(id: 7, peer: "", address: "")
    defer {
      lua.lua.release(conn)
      lua.lua.release(other)
    }
    return lua.failure("go", LuaArguments(.reference(conn), .reference(other)))
  }

  @Test(
    "its fields and methods",
    arguments: [
      ("return conn.id, math.type(conn.id)", "returned 1099511627776 'integer'"),
      ("return conn.peer, conn.address, other.peer", "returned '127.0.0.1:5' 'unix:é' ''"),
      ("return conn:number(), other:number()", "returned 1099511627776 7"),
      ("return conn.unknown, conn[1], conn[conn]", "returned nil nil nil"),
      (
        "return type(conn), type(conn.ctx), conn.ctx == conn.ctx, conn.ctx == other.ctx",
        "returned 'userdata' 'table' true false"
      ),
      ("conn.ctx.a = 1 return conn.ctx.a, other.ctx.a", "returned 1 nil"),
      ("conn.ctx = { a = 2 } return conn.ctx.a", "returned 2"),
      ("return tostring(conn), tostring(other)", "returned 'connection 1099511627776 (127.0.0.1:5)' 'connection 7 ()'"),
      ("return conn == conn, conn == other, getmetatable(conn)", "returned true false 'connection'"),
      ("local t = { [conn] = 1 } return t[conn], t[other]", "returned 1 nil"),
      ("return conn.number(other)", "returned 7"),
    ])
  func fields(_ body: String, _ expected: String) throws {
    #expect(try run(body) == expected)
  }

  @Test(
    "wrong use raises with the script's line",
    arguments: [
      ("conn.name = 1", "cannot set 'name' on a connection; keep the script's own data in conn.ctx"),
      ("conn.id = 1", "cannot set 'id' on a connection"), ("conn[1] = 1", "cannot set 'number' on a connection"),
      ("conn.ctx = 1", "conn.ctx must be a table, not number"), ("conn.ctx = nil", "conn.ctx must be a table, not nil"),
      ("conn.number({})", "bad argument #1 to 'number' (connection expected, got table)"),
      ("conn.number()", "bad argument #1 to 'number' (connection expected, got no value)"),
      (
        "local t = { number = conn.number } t:number()", "calling 'number' on bad self (connection expected, got table)"
      ),
      ("local f = conn.number f(io.stdout)", "(connection expected, got FILE*)"),
      ("setmetatable(conn, {})", "bad argument #1 to 'setmetatable'"),
      ("return #conn", "attempt to get length of a connection value"),
    ])
  func wrongUse(_ body: String, _ expected: String) throws {
    let failure = try run(body)
    #expect(failure.hasPrefix("script.lua:2: ") && failure.contains(expected), "\(failure)")
  }

  @Test("its metatable cannot be reached or replaced, by the debug library neither")
  func debugLibrary() throws {
    #expect(try run("return getmetatable(conn), debug.getmetatable(conn)") == "returned 'connection' 'connection'")
    #expect(try run("debug.setmetatable(conn, {})").contains("only a table's metatable can be changed"))
  }

  @Test("objects that nobody holds are freed, with their ctx")
  func freed() throws {
    let lua = try TestLua("return { go = function(conn) conn.ctx.big = ('x'):rep(10000) end }")
    lua.lua.collectGarbage()
    let before = lua.lua.memoryBytes
    for id in 1...100 {
      let conn = lua.lua.makeConnection(id: Int64(id), peer: "p", address: "a")
      try lua.call("go", LuaArguments(.reference(conn)))
      lua.lua.release(conn)
    }
    lua.lua.collectGarbage()
    #expect(lua.lua.memoryBytes < before + 10_000, "one of a hundred was kept")
  }

  @Test("making one fails cleanly whichever allocation is refused")
  func allocationFailures() throws {
    let lua = try TestLua("return {}")
    lua.lua.collectGarbage()
    let before = lua.lua.memoryBytes
    var count = 0
    while true {
      lua.lua.failAllocations(after: count)
      let conn = lua.lua.makeConnection(id: 9, peer: "127.0.0.1:60000", address: "somewhere")
      lua.lua.failAllocations(after: nil)
      lua.lua.release(conn)
      if conn.exists { break }
      count += 1
    }
    #expect(count >= 3)
    lua.lua.collectGarbage()
    #expect(lua.lua.memoryBytes <= before + 300)
  }
}
