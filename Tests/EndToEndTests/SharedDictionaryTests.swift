// moonport.shared as scripts use it: each call's results and failures, on two workers, over reloads.
//
// Must never know: how a dictionary is made.

import TestSupport
import Testing

@Suite struct SharedDictionaryTests {
  /// Answers a line with what it gives as Lua code, in which `d` is the dictionary and `second` the other worker's turn.
  private static let evaluating = """
    local moonport = require "moonport"
    local print, sleep = print, moonport.sleep
    moonport.listen { address = "127.0.0.1:0", codec = "line" }
    d = moonport.shared("test"OPTIONS)
    local h = {}
    local function text(value)
      if type(value) ~= "table" then return tostring(value) end
      local parts = {}
      for index, item in ipairs(value) do parts[index] = text(item) end
      table.sort(parts)
      return "{" .. table.concat(parts, " ") .. "}"
    end
    function h.on_message(conn, code)
      local results = table.pack(pcall(assert(load("return " .. code, "=code"))))
      for index = 1, results.n do results[index] = text(results[index]) end
      conn:send(results[1] == "true" and "" or "error: ", table.concat(results, " ", 2))
    end
    return h
    """

  private static func script(_ options: String = "") -> String {
    evaluating.replacingOccurrences(of: "OPTIONS", with: options)
  }

  /// A server with two workers, and a client on each.
  private func serve(
    _ options: String = "", folder: TemporaryFolder? = nil
  ) throws -> (MoonportProcess, TestClient, TestClient) {
    let server = try MoonportProcess(script: Self.script(options), folder: folder) { $0.workers = 2 }
    let (one, two) = try server.clientsOfBothWorkers(asking: "require('moonport').worker.id")
    return (server, one, two)
  }

  /// Asks for the results of code, one after the other.
  private func expect(_ client: TestClient, _ exchanges: [(String, String)]) throws {
    for (code, results) in exchanges { #expect(try client.ask(code) == results, "\(code)") }
  }

  @Test func `what one worker stores the other reads, with its type`() throws {
    let (server, one, two) = try serve()
    for value in ["true", "false", "-7", "2.0", "0.1", "'text'", "''", "9223372036854775807"] {
      #expect(try one.ask("d:set('k', \(value))") == "true nil false")
      #expect(try two.ask("d:get('k') == \(value), math.type(d:get('k')) == math.type(\(value))") == "true true")
    }
    #expect(try one.ask("d:set('k', { x = { 1, { y = 'z' } } }, 0, 9)") == "true nil false")
    #expect(try two.ask("d:get('k').x[2].y, select(2, d:get('k'))") == "z 9")
    #expect(try one.ask("d:set('k', '\\0\\255' .. ('long'):rep(100000))") == "true nil false")
    #expect(try two.ask("#d:get('k'), d:get('k'):byte(1, 2)") == "400002 0 255")
    #expect(try two.ask("d:set('k', nil)") == "true nil false")
    #expect(try one.ask("d:get('k')") == "nil")
    try server.stop()
  }

  @Test func `each call returns what it says, and why it failed`() throws {
    let (server, one, two) = try serve()
    try expect(
      one,
      [
        ("d:add('k', 1)", "true nil false"), ("d:add('k', 2)", "nil exists"), ("d:safe_add('k', 2)", "nil exists"),
        ("d:replace('k', 3)", "true nil false"), ("d:replace('none', 3)", "nil not found"),
        ("d:incr('k', 2)", "5"), ("d:incr('k', 0.5)", "5.5"), ("d:incr('none', 1)", "nil not found"),
        ("d:incr('new', 1, 10, 60)", "11 nil false"), ("d:ttl('new') > 59", "true"),
        ("d:set('s', 'x')", "true nil false"), ("d:incr('s', 1)", "nil not a number"),
        ("d:set('i', math.maxinteger)", "true nil false"), ("d:incr('i', 1)", "nil overflow"),
        ("d:cas('s', 'y', 'z')", "nil changed"), ("d:cas('s', 'x', 'z')", "true nil false"),
        ("d:cas('none', 'y', 'z')", "nil not found"), ("d:cas('none', nil, 'z')", "true nil false"),
        ("d:cas('none', 'z', nil)", "true nil false"), ("d:get('none')", "nil"),
        ("d:expire('s', 100)", "true"), ("d:ttl('s') > 99", "true"), ("d:expire('s', 0)", "true"),
        ("d:ttl('s')", "0.0"),
        ("d:expire('none', 1)", "nil not found"), ("d:ttl('none')", "nil not found"),
        ("d:delete('s')", "true nil true"), ("d:delete('s')", "true nil false"),
      ])
    try expect(
      two,
      [
        ("d:lpush('l', 2)", "1"), ("d:lpush('l', 'one')", "2"), ("d:rpush('l', { 3 })", "3"), ("d:llen('l')", "3"),
        ("d:lrange('l', 1, -1)", "{2 one {3}}"), ("d:lrange('l', -2, -2)", "{2}"), ("d:lrange('l', 5, 9)", "{}"),
        ("d:get('l')", "nil value is a list"), ("d:incr('l', 1)", "nil not a number"),
        ("d:lpop('l')", "one"), ("d:rpop('l')", "{3}"), ("d:lpop('l')", "2"), ("d:lpop('l')", "nil"),
        ("d:llen('l')", "0"),
        ("d:llen('k')", "nil value not a list"), ("d:lpush('k', 1)", "nil value not a list"),
        ("d:rpop('k')", "nil value not a list"), ("d:lrange('k', 1, 2)", "nil value not a list"),
        ("d:keys()", "{i k new}"), ("#d:keys(2)", "2"), ("#d:get_keys(0)", "3"), ("d:count()", "3"),
        ("d:set(('x'):rep(65536), 1)", "nil key too long"), ("d:get(('x'):rep(65536))", "nil key too long"),
        ("d:set(('x'):rep(65535), 1)", "true nil false"), ("d:set(12, 'number')", "true nil false"),
        ("d:get('12')", "number"),
        ("d:flush()", ""), ("d:count(), d:capacity(), d:free_space()", "0 67108864 67108864"),
        ("d:set('e', 1, 0.001), require('moonport').sleep(0.005), d:flush_expired()", "true nil 1"),
        ("d:flush_all()", ""),
        ("tostring(d), d == require('moonport').shared('test')", "shared dictionary (test) true"),
      ])
    try server.stop()
  }

  @Test(arguments: [
    ("d.get('k')", "bad argument #1 to 'get' (shared dictionary expected, got string)"),
    ("d:get()", "bad argument #1 to 'get' (string expected, got no value)"),
    ("d:get({})", "bad argument #1 to 'get' (string expected, got table)"),
    ("d:set('k', print)", "bad argument #2 to 'set' (a function cannot be plain data)"),
    ("d:set('k', { 1, { x = print } })", "bad argument #2 to 'set' ([2].x: a function cannot be plain data)"),
    ("d:set('k', 1, -1)", "bad argument #3 to 'set' (number of seconds, at least 0, expected, got number)"),
    ("d:set('k', 1, 0/0)", "bad argument #3 to 'set' (number of seconds, at least 0, expected, got number)"),
    ("d:set('k', 1, 'x')", "bad argument #3 to 'set' (number expected, got string)"),
    ("d:set('k', 1, 0, -1)", "bad argument #4 to 'set' (integer from 0 to 4294967295 expected, got number)"),
    ("d:add('k')", "bad argument #2 to 'add' (value expected)"),
    ("d:add('k', nil)", "bad argument #2 to 'add' (value expected, got nil)"),
    ("d:incr('k', 'x')", "bad argument #2 to 'incr' (number expected, got string)"),
    ("d:incr('k', 1, {})", "bad argument #3 to 'incr' (number expected, got table)"),
    ("d:incr('k', 1, nil, 1)", "bad argument #3 to 'incr' (number expected, got nil)"),
    ("d:cas('k', {}, 1)", "bad argument #2 to 'cas' (boolean, number, string or nil expected, got table)"),
    ("d:expire('k')", "bad argument #2 to 'expire' (number expected, got no value)"),
    ("d:lpush('k', nil)", "bad argument #2 to 'lpush' (value expected, got nil)"),
    ("d:lrange('k', 1)", "bad argument #3 to 'lrange' (number expected, got no value)"),
    ("d:keys(-1)", "bad argument #1 to 'keys' (integer of at least 0 expected, got number)"),
    ("(function() d.x = 1 end)()", "cannot set 'x' on a shared dictionary; use its method set"),
    ("(require('moonport').shared())", "bad argument #1 to 'shared' (string expected, got no value)"),
    ("(require('moonport').shared(''))", "moonport.shared: a name has 1 to 255 bytes"),
    ("(require('moonport').shared('x', 1))", "bad argument #2 to 'shared' (table expected, got number)"),
    (
      "(require('moonport').shared('x', { size = 1 }))", "moonport.shared: unknown option \"size\"; it knows max_memory"
    ),
    (
      "(require('moonport').shared('x', { max_memory = 1 }))",
      "moonport.shared: option 'max_memory' must be at least 4096"
    ),
  ]) func `wrong use raises an error that names the function and the argument`(code: String, message: String) throws {
    let server = try MoonportProcess(script: Self.script()) { $0.workers = 1 }
    let answer = try server.connect().ask(code)
    #expect(answer.hasPrefix("error: code:1: \(message)"), "\(answer)")
  }

  @Test func `a full dictionary lets the least recently used go and says so`() throws {
    let (server, one, two) = try serve(", { max_memory = 4096 }")
    _ = try one.ask("(function() for i = 1, 20 do d:set('k' .. i, i) end end)()")
    #expect(try two.ask("d:get('k1')") == "1")
    #expect(try one.ask("d:set('large', ('x'):rep(2000))") == "true nil true")
    #expect(try two.ask("d:get('k1'), d:get('k2'), d:get('k20')") == "1 nil 20")
    #expect(try one.ask("d:set('larger', ('x'):rep(4000))") == "nil no memory")
    #expect(try one.ask("d:safe_set('more', ('x'):rep(1500))") == "nil no memory")
    #expect(try one.ask("d:count() > 10, d:incr('n', 1, 0)") == "true 1 nil true")
    let figures = try server.status()["dictionaries"].elements[0]
    #expect(figures["name"].text == "test" && figures["max_memory"].integer == 4096)
    #expect(figures["bytes"].integer! <= 4096 && figures["items"].integer! > 5 && figures["evictions"].integer! > 3)
    #expect(try server.control("status").output.contains("Shared dictionaries\n"))
    try server.stop()
  }

  @Test func `keys expire by the clock on every worker`() throws {
    let (server, one, two) = try serve()
    #expect(try one.ask("d:set('k', 1, 0.2), d:set('long', 1, 1e300)") == "true true nil false")
    try eventually("it is gone") { try two.ask("d:get('k')") == "nil" }
    #expect(try one.ask("d:ttl('k')") == "nil not found")
    #expect(try one.ask("d:count(), d:ttl('long') > 1e9") == "1 true")
    try server.stop()
  }

  // MARK: Reload

  @Test func `a reload keeps what is in a dictionary, and only a live generation changes its cap`() throws {
    let folder = try TemporaryFolder()
    let (server, one, two) = try serve(", { max_memory = 100000 }", folder: folder)
    #expect(try one.ask("d:set('k', 'kept')") == "true nil false")
    // The trial run of `check`, and a reload that fails, ask for another cap and store something.
    let other = Self.script(", { max_memory = 5000 }")
    for end in ["d:set('k', 'trial') error('no')", "function h.on_restore() error('no') end return h"] {
      try folder.replace("main.lua", other.replacingOccurrences(of: "\nreturn h", with: "\n" + end))
      #expect(try server.control("reload").status == .exited(1))
      #expect(try two.ask("d:capacity()") == "100000")
    }
    #expect(try one.ask("d:get('k')") == "kept")
    try folder.replace("main.lua", Self.script(", { max_memory = 200000 }"))
    #expect(try server.control("reload").status == .exited(0))
    #expect(try two.ask("d:capacity(), d:get('k')") == "200000 kept")
    try folder.replace("main.lua", Self.script())
    #expect(try server.control("reload").status == .exited(0))
    #expect(try two.ask("d:capacity(), d:get('k')") == "200000 kept")
    #expect(try two.ask("require('moonport').shared('test', { max_memory = 300000 }):capacity()") == "300000")
    try server.stop()
  }
}

extension MoonportProcess {
  /// A client on each of two workers; `question` is what a client sends to be told its worker's number.
  func clientsOfBothWorkers(asking question: String) throws -> (TestClient, TestClient) {
    var clients: [String: TestClient] = [:]
    while clients.count < 2 {
      let client = try connect()
      clients[try client.ask(question)] = client
    }
    guard let one = clients["1"], let two = clients["2"] else { throw TestFailure("the workers are \(clients.keys)") }
    return (one, two)
  }
}
