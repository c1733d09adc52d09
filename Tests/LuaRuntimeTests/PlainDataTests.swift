import LuaRuntime
import Testing

@Suite("Plain data")
struct PlainDataTests {
  /// Packs and unpacks what `values` says, and compares both with a function of the script's own.
  private static let script = """
    local function same(a, b)
      if math.type(a) ~= math.type(b) then return false end
      if type(a) ~= "table" or type(b) ~= "table" then return a == b or (a ~= a and b ~= b) end
      for key, value in pairs(a) do if not same(value, b[key]) then return false end end
      for key in pairs(b) do if a[key] == nil then return false end end
      return getmetatable(b) == nil
    end
    local function travel(...)
      local sent = table.pack(...)
      native.pack(...)
      local got = table.pack(native.unpack())
      if got.n ~= sent.n then return "got " .. got.n .. " values" end
      for i = 1, sent.n do if not same(sent[i], got[i]) then return "value " .. i .. " differs" end end
      return "same"
    end
    local function nest(depth)
      local inner = {}
      for _ = 2, depth do inner = { inner } end
      return inner
    end
    """

  private func run(_ code: String) throws -> String {
    // In one line, so that the code begins in the second.
    let script = String(Self.script.map { $0 == "\n" ? " " : $0 })
    return try TestLua("\(script) return { go = function()\n\(code) end }").failure("go")
  }

  @Test(
    "values come out of another call as they went in",
    arguments: [
      "", "nil", "nil, nil", "true, false", "0, -1, 1, 63, 64, -64, -65, 1 << 40, math.maxinteger, math.mininteger",
      "0.0, -0.5, 1e300, math.huge, -math.huge, 0/0, 3.0", "'', 'a', ('x'):rep(127), ('x'):rep(128), 'a\\0b\\255'",
      "{}", "{ 1, 2, 3 }", "{ a = 1, b = { c = { 'd' } } }", "{ [0] = 0, 1, 2, [4] = 4, [-1] = -1, [2.5] = 'x' }",
      "{ [true] = false, [false] = true }", "{ [math.maxinteger] = 1, [1 << 53] = 2 }", "{ 1, nil, 3 }",
      "{ n = 1, {}, {}, { {} } }", "nest(100)", "'a', { 'b' }, nil, 3, nil", "('x'):rep(100000)",
      "(function() local t = {} for i = 1, 5000 do t[i] = { i } end return t end)()",
      "(function() local t = {} for i = 1, 5000 do t['k' .. i] = { i } end return t end)()",
      "table.unpack({}, 1, 10000)",
    ])
  func roundTrip(_ values: String) throws {
    #expect(try run("return travel(\(values))") == "returned 'same'")
  }

  @Test("minus zero stays minus zero and a float stays a float")
  func floats() throws {
    let code = """
      native.pack(-0.0, { 2.0 })
      local zero, list = native.unpack()
      return 1 / zero == -math.huge, math.type(list[1])
      """
    #expect(try run(code) == "returned true 'float'")
  }

  @Test(
    "what cannot be plain data is refused with the path to it",
    arguments: [
      ("print", "(a function cannot be plain data)"),
      ("coroutine.create(print)", "(a coroutine cannot be plain data)"),
      ("io.stdout", "(a userdata cannot be plain data)"),
      ("{ players = { 1, 2, { conn = print } } }", "(players[3].conn: a function cannot be plain data)"),
      ("{ { { print } } }", "([1][1][1]: a function cannot be plain data)"),
      ("{ ['a b'] = print }", "([\"a b\"]: a function cannot be plain data)"),
      ("{ ['a\\n\\\"'] = print }", "([\"a?\"\"]: a function cannot be plain data)"),
      (
        "{ [('x'):rep(50)] = print }",
        "([\"\(String(repeating: "x", count: 40))...\"]: a function cannot be plain data)"
      ),
      ("{ [true] = { [1.5] = print } }", "([true][1.5]: a function cannot be plain data)"),
      ("{ a = { [print] = 1 } }", "(a: a function cannot be plain data)"),
      ("{ a = { [{}] = 1 } }", "(a: a table as a key cannot be plain data)"),
      ("{ a = { [io.stdout] = 1 } }", "(a: a userdata as a key cannot be plain data)"),
      ("{ a = setmetatable({}, {}) }", "(a: a table with a metatable cannot be plain data)"),
      ("setmetatable({}, {})", "(a table with a metatable cannot be plain data)"),
      (
        "(function() local t = { 1 } return { a = { t, t } } end)()",
        "(a[2]: a table that occurs twice cannot be plain data)"
      ),
      ("(function() local t = { a = {} } t.a.b = t return t end)()", "(a.b: a cycle cannot be plain data)"),
      ("(function() local t = {} t.t = t return t end)()", "(t: a cycle cannot be plain data)"),
      ("{ a = ('x'):rep(17 << 20) }", "(a: more than 16 MiB of plain data)"),
      ("('x'):rep(17 << 20)", "(more than 16 MiB of plain data)"),
    ])
  func refused(_ value: String, _ expected: String) throws {
    #expect(try run("native.pack(\(value))").hasPrefix("script.lua:2: bad argument #1 to 'pack' \(expected)\n"))
    #expect(try run("native.pack(7, \(value))").hasPrefix("script.lua:2: bad argument #2 to 'pack' \(expected)\n"))
    let result = try run("native.pack_results(0, 7, (\(value)))")
    #expect(result.hasPrefix("script.lua:2: bad result #2 \(expected)\n"))
    guard value.hasPrefix("{") else { return }
    #expect(
      try run("native.p_twice({}, 1, \(value))").hasPrefix("script.lua:2: bad argument #3 to 'p_twice' \(expected)\n"))
  }

  @Test("the path to a place too deep shows its end")
  func deep() throws {
    let message = try run("native.pack(nest(101))")
    #expect(message.contains("(...[1][1][1][1][1][1][1][1]: tables more than 100 deep cannot be plain data)"))
    #expect(try run("native.pack(table.unpack({}, 1, 10001))").contains("more than 10000 values of plain data"))
  }

  @Test("a table that two arguments share is refused in a list, and packed twice where each argument is its own value")
  func shared() throws {
    #expect(
      try run("local t = {} native.pack(t, t)").contains(
        "bad argument #2 to 'pack' (a table that occurs twice cannot be plain data)"))
    let lua = try TestLua("return { go = function() local t = { 1, 'x' } native.p_twice(t, 5, t) end }")
    try lua.call("go")
    #expect(lua.recorder.plain.count == 2 && lua.recorder.plain[0] == lua.recorder.plain[1])
    #expect(lua.recorder.plain.allSatisfy { !$0.isList })
  }

  @Test("a connection is refused, and its id proposed")
  func connection() throws {
    let lua = try TestLua("return { go = function(conn) native.pack { players = { conn } } end }")
    let connection = lua.lua.makeConnection(id: 77, peer: "peer", address: "here")
    let message = lua.failure("go", LuaArguments(.reference(connection)))
    #expect(message.contains("(players[1]: a connection cannot be plain data (its id can))"))
  }

  @Test(
    "a single plain value is packed only where it is a table",
    arguments: [
      ("native.p(nil)", "nil"), ("native.p(true)", "true"), ("native.p(3)", "3"), ("native.p(0.5)", "0.5"),
      ("native.p('x')", "'x'"), ("native.p({})", "plain:9"), ("native.p({ 1 })", "plain:11"),
      ("native.p_optional()", ""), ("native.p_optional(nil)", "nil"), ("native.p_optional({})", "plain:9"),
    ])
  func single(_ code: String, _ expected: String) throws {
    let lua = try TestLua("return { go = function() \(code) end }")
    try lua.call("go")
    #expect(lua.recorder.calls == [expected])
    #expect(try run("native.p()").contains("bad argument #1 to 'p' (value expected)"))
  }

  @Test("packed values reach a function and a waiting call in another state")
  func anotherState() throws {
    let sender = try TestLua("return { go = function() native.pack('a', { b = { 1, 2 } }, nil) end }")
    try sender.call("go")
    let list = try #require(sender.recorder.plain.last)
    let receiver = try TestLua(
      """
      local function show(...)
        local a, b, c = ...
        return a .. #b.b .. tostring(c) .. select("#", ...)
      end
      return {
        called = function(first, ...) return first .. show(...) end,
        handler = function(first, ...) native.s(first .. show(...)) native.s(show(native.wait())) end,
      }
      """)
    list.withValue { value in
      #expect(receiver.failure("called", LuaArguments(.text("1"), value)) == "returned '1a2nil3'")
      #expect(receiver.converse("handler", [value], LuaArguments(.text("2"), value)) == "returned")
    }
    #expect(receiver.recorder.calls == ["'2a2nil3'", "'a2nil3'"])
  }

  @Test("a list comes behind another result, and is a call's only result when it is empty")
  func results() throws {
    #expect(try run("native.pack(1, 2) return native.unpack_behind('first')") == "returned 'first' 1 2")
    #expect(try run("native.pack() return select('#', native.unpack())") == "returned 0")
  }

  @Test("packing leaves neither memory nor the stack in use, whether it ends well or not")
  func memory() throws {
    let lua = try TestLua(
      """
      local big = { ("x"):rep(1 << 20), {}, {}, {} }
      local bad = { ("x"):rep(1 << 20), { { print } } }
      return {
        good = function() native.p(big) native.pack(big) end,
        bad = function()
          for _ = 1, 300 do
            assert(not pcall(native.pack, bad))
            assert(not pcall(native.p_twice, big, "x", {}))
          end
        end,
      }
      """)
    try lua.call("good")
    lua.recorder.plain.removeAll()
    lua.lua.collectGarbage()
    let before = lua.lua.memoryBytes
    try lua.call("bad")
    try lua.call("good")
    lua.lua.collectGarbage()
    #expect(lua.lua.memoryBytes <= before)
  }

  @Test("a refused allocation is an error and nothing else, wherever it strikes")
  func allocations() throws {
    let lua = try TestLua(
      """
      local value = { "some text", { 1, 2, 3 }, name = { a = { b = { c = ("y"):rep(300) } } } }
      for i = 1, 40 do value[#value + 1] = { i } end
      return {
        pack = function() native.pack(1, value) end, single = function() native.p(value) end,
        unpack = function() return (native.unpack()) end,
        bad = function() native.pack { a = { b = print } } end,
      }
      """)
    for name in ["pack", "single", "unpack"] as [StaticString] {
      var refusals = 0
      while refusals < 5000 {
        lua.lua.failAllocations(after: refusals)
        let outcome = lua.failure(name)
        lua.lua.failAllocations(after: nil)
        if outcome.hasPrefix("returned") { break }
        #expect(outcome.contains("not enough memory"), "\(outcome)")
        refusals += 1
      }
      #expect((1..<5000).contains(refusals) || name.description == "single", "\(name) \(refusals)")
    }
    for count in 0..<200 {
      lua.lua.failAllocations(after: count)
      let outcome = lua.failure("bad")
      lua.lua.failAllocations(after: nil)
      #expect(outcome.contains("not enough memory") || outcome.contains("a.b: a function"), "\(outcome)")
    }
  }

  @Test(
    "damaged bytes are an error",
    arguments: [
      [], [7], [0xff], [3], [3, 0x80], [3] + Array(repeating: 0xff, count: 11), [4, 0, 0], [5], [5, 1],
      [5, 0xff, 0xff],
      [6], [6, 0, 0, 0, 0, 0, 0, 0], [6, 1, 0, 0, 0, 0, 0, 0, 0],
      [6, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0],
      [6, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0], [6, 0, 0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0xf8, 0x7f, 0],
      [6, 0, 0, 0, 0, 1, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0], [0, 0],
    ] as [[UInt8]])
  func damaged(_ bytes: [UInt8]) throws {
    let lua = try TestLua("return { go = function() return native.unpack() end }")
    for isList in [false, true] {
      lua.recorder.plain = [PlainData(bytes: isList ? [1] + bytes : bytes, isList: isList)]
      #expect(lua.failure("go").contains("damaged plain data"))
    }
    let nested = Array(repeating: [6, 1, 0, 0, 0, 0, 0, 0, 0] as [UInt8], count: 101).joined() + [0]
    lua.recorder.plain = [PlainData(bytes: Array(nested), isList: false)]
    #expect(lua.failure("go").contains("damaged plain data"))
  }
}
