import LuaRuntime
import Testing

@Suite("A function offered to scripts")
struct HostCallTests {
  /// Calls `code` in a script and returns the error it raises, or what it returns.
  private func outcome(_ code: String) throws -> String {
    try TestLua("return { go = function()\nreturn \(code) end }").failure("go")
  }

  /// What the host function of the call in `code` received.
  private func received(_ code: String) throws -> String {
    let lua = try TestLua("return { go = function() \(code) end }")
    let connection = lua.lua.makeConnection(id: 77, peer: "peer", address: "here")
    try lua.call("go", LuaArguments(.reference(connection)))
    return lua.recorder.calls.joined(separator: ",")
  }

  @Test(
    "each letter of a signature takes what it stands for",
    arguments: [
      ("native.d(5)", "5"), ("native.d(6.0)", "6"), ("native.s('text')", "'text'"), ("native.s('')", "''"),
      ("native.s(12)", "'12'"), ("native.s(1.5)", "'1.5'"),
      ("native.i(-3)", "-3"), ("native.i(3.0)", "3"), ("native.i('4')", "4"),
      ("native.n(1)", "1.0"), ("native.n(0.5)", "0.5"), ("native.n('0x10')", "16.0"),
      ("native.b(true)", "true"), ("native.b(false)", "false"),
      ("native.f(print)", "function"), ("native.f(function() end)", "function"),
      ("native.a('s')", "'s'"), ("native.a(1)", "1"), ("native.a(1.5)", "1.5"), ("native.a(false)", "false"),
      ("native.a(nil)", "nil"), ("native.a({})", "other"), ("native.a(print)", "other"),
      ("native.a(io.stdout)", "other"),
      ("native.functions(print, 3, nil, print)", "function 3 nil function"), ("native.functions()", ""),
      ("native.strings(1, 'a', 2, 'c')", "'a' '2' 'c'"), ("native.messages('a', 2, 'c')", "'a' '2' 'c'"),
    ])
  func right(_ code: String, _ expected: String) throws {
    #expect(try received(code) == expected)
  }

  @Test("a connection object is taken for its id")
  func connection() throws {
    let lua = try TestLua(
      "return { go = function(conn) native.c(conn) native.a(conn) native.d(conn) native.c_optional(nil) end }")
    let connection = lua.lua.makeConnection(id: 77, peer: "peer", address: "here")
    try lua.call("go", LuaArguments(.reference(connection)))
    #expect(lua.recorder.calls == ["connection:77", "connection:77", "connection:77", "nil"])
  }

  @Test("an optional argument may be nil or absent", arguments: ["c", "d", "s", "i", "n", "b", "f", "a"])
  func optional(_ letter: String) throws {
    let lua = try TestLua("return { go = function() native.\(letter)_optional() native.\(letter)_optional(nil) end }")
    try lua.call("go")
    #expect(lua.recorder.calls == ["", "nil"])
  }

  @Test(
    "a wrong or missing argument raises an error that names line, function and argument",
    arguments: [
      ("native.c({})", "'c' (connection expected, got table)"),
      ("native.c(io.stdout)", "'c' (connection expected, got FILE*)"),
      ("native.c()", "'c' (connection expected, got no value)"),
      ("native.c_optional(1)", "'c_optional' (connection expected, got number)"),
      ("native.d({})", "'d' (connection or id expected, got table)"),
      ("native.d()", "'d' (connection or id expected, got no value)"),
      ("native.d_optional(1.5)", "'d_optional' (connection or id expected, got number)"),
      ("native.s({})", "'s' (string expected, got table)"), ("native.s()", "'s' (string expected, got no value)"),
      ("native.s_optional(true)", "'s_optional' (string expected, got boolean)"),
      ("native.i('x')", "'i' (number expected, got string)"), ("native.i()", "'i' (number expected, got no value)"),
      ("native.i(1.5)", "'i' (number has no integer representation)"),
      ("native.i_optional({})", "'i_optional' (number expected, got table)"),
      ("native.n('x')", "'n' (number expected, got string)"), ("native.n()", "'n' (number expected, got no value)"),
      ("native.n_optional('')", "'n_optional' (number expected, got string)"),
      ("native.b(1)", "'b' (boolean expected, got number)"), ("native.b()", "'b' (boolean expected, got no value)"),
      ("native.b_optional('true')", "'b_optional' (boolean expected, got string)"),
      ("native.f({})", "'f' (function expected, got table)"), ("native.f()", "'f' (function expected, got no value)"),
      ("native.f_optional('f')", "'f_optional' (function expected, got string)"),
      ("native.messages()", "'messages' (value expected)"),
    ])
  func wrong(_ code: String, _ expected: String) throws {
    #expect(try outcome(code).hasPrefix("script.lua:2: bad argument #1 to \(expected)\nstack traceback:"))
  }

  @Test("the place of a later wrong argument is its own")
  func later() throws {
    #expect(try outcome("native.strings(1, 'a', {})").hasPrefix("script.lua:2: bad argument #3 to 'strings'"))
    #expect(try outcome("native.strings(1)").hasPrefix("script.lua:2: bad argument #2 to 'strings'"))
    #expect(try outcome("native.functions(print, 'x')").hasPrefix("script.lua:2: bad argument #2 to 'functions'"))
  }

  @Test("a message that is neither string nor number is left to the function to judge")
  func messages() throws {
    #expect(try received("native.messages('a', {})") == "")
  }

  @Test("a wrong argument leaves no reference of the ones before it behind")
  func noReferenceLeft() throws {
    let lua = try TestLua("return { go = function() native.functions(function() end, 1, function() end, 3) end }")
    _ = lua.failure("go")
    lua.lua.collectGarbage()
    let before = lua.lua.memoryBytes
    for _ in 0..<1000 { _ = lua.failure("go") }
    lua.lua.collectGarbage()
    #expect(lua.lua.memoryBytes <= before + 500)
    #expect(lua.recorder.calls.isEmpty)
  }

  @Test("more arguments than declared are no error, and a great many variadic ones arrive")
  func many() throws {
    #expect(try received("native.s('a', 'b')").hasPrefix("'a'"))
    let lua = try TestLua("return { go = function() native.strings(1, ('x'):rep(5000):byte(1, -1)) end }")
    try lua.call("go")
    #expect(lua.recorder.calls[0].utf8.count == 5000 * 6 - 1)
  }

  // MARK: Results

  @Test(
    "what a function returns arrives",
    arguments: [
      ("native.two()", "returned true 1.5"), ("native.three()", "returned nil 'text' -1"),
      ("native.fail()", "returned nil 'out of luck'"), ("#native.list('a', 'bc')", "returned 3"),
      ("table.concat(native.list('a', 'bc'), ',')", "returned 'a,bc,'"), ("native.s('a')", "returned "),
    ])
  func results(_ code: String, _ expected: String) throws {
    #expect(try outcome(code) == expected)
  }

  @Test("what a function raises has the script's line, and an argument error its place")
  func raised() throws {
    #expect(try outcome("native.raise('no luck')").hasPrefix("script.lua:2: no luck\nstack"))
    #expect(
      try outcome("native.wrong(1, 4)").hasPrefix(
        "script.lua:2: bad argument #2 to 'wrong' (a prime number expected, got number)\nstack"))
  }

  @Test("a reference that is returned stays, one that is given goes once Lua has it")
  func references() throws {
    let lua = try TestLua(
      "return { keep = function() native.f(function() return 7 end) end, kept = function() return native.kept()() end,"
        + " given = function() return native.given()() end }")
    lua.lua.collectGarbage()
    try lua.call("keep")
    #expect(try lua.call("kept") == "7")
    #expect(try lua.call("kept") == "7")
    #expect(try lua.call("given") == "7")
    lua.lua.collectGarbage()
    let before = lua.lua.memoryBytes
    for _ in 0..<1000 {
      try lua.call("keep")
      #expect(try lua.call("given") == "7")
    }
    lua.lua.collectGarbage()
    #expect(lua.lua.memoryBytes <= before + 500)
  }

  @Test("a message of any type is made bytes by a function of the script, which may neither wait nor return nothing")
  func encodes() throws {
    let lua = try TestLua(
      """
      native.f(function(f, message) return f(message) end)
      native.f(function(message)
        if message == "1" then native.wait() end
        if message == "2" then error("no") end
        if message == "3" then return end
        return "<" .. message.x .. ">"
      end)
      return { go = function(n) return native.encode(n or { x = "y" }) end, two = function() native.encode(1, 2) end }
      """)
    #expect(try lua.call("go") == "'<y>'")
    #expect(lua.failure("go", LuaArguments(.integer(1))).contains("wait cannot wait here"))
    #expect(lua.failure("go", LuaArguments(.integer(2))).contains("script.lua:4: no"))
    #expect(lua.failure("go", LuaArguments(.integer(3))).contains("string expected, got nil"))
    #expect(lua.failure("two").contains("one message at a time"))
    #expect(try lua.call("go") == "'<y>'")
  }
}
