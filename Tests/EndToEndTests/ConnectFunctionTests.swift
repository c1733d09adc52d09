// moonport.connect and moonport.resolve on the built program: every result, every failure, and what an outgoing connection is.
//
// Must never know: anything but the program's command line, its streams and its sockets.

import Glibc
import TestSupport
import Testing

@Suite struct ConnectFunctionTests {
  private func serve(workers: Int = 1, _ configure: (inout MoonportProcess.Options) -> Void = { _ in }) throws
    -> MoonportProcess
  {
    try .serving(runsLines, workers: workers, configure)
  }

  // MARK: connect

  @Test func `connect reaches every kind of address, and the connection has the methods of any other`() throws {
    let server = try serve()
    let client = try server.connect()
    let path = server.folder.file("up.sock")
    for address in ["127.0.0.1:0", "[::1]:0", "unix:\(path)"] {
      let listener = try TestListener(address)
      try client.send(
        """
        local c, why = moonport.connect("\(listener.address)", { codec = "line" }) if not c then return why end \
        c:send("hello") local answer = c:receive() c:write("raw") kept[1] = c \
        return answer, c.peer, c.id > 0, c:closed(), c:buffered(), #c:rooms(), tostring(c):sub(1, 10)

        """)
      let upstream = try listener.accept()
      #expect(try upstream.receiveLine() == "hello")
      try upstream.send("hi\n")
      let peer = address.hasPrefix("unix:") ? "unix:\(path)" : listener.address
      #expect(try client.receiveLine() == "hi \(peer) true false 3 0 connection")
      #expect(try upstream.receive(exactly: 3) == Array("raw".utf8))
      #expect(try client.ask("return kept[1]:close(), kept[1]:closed()") == "true true")
      #expect(try upstream.waitForEnd() == .closed)
      #expect(try client.ask("return kept[1]:send('x')") == "nil closed")
      #expect(try client.ask("return kept[1]:receive()") == "nil closed")
    }
  }

  @Test func `connect looks names up, and tries several addresses in turn`() throws {
    let server = try serve()
    let client = try server.connect()
    let listener = try TestListener()
    let port = listener.address.split(separator: ":").last!
    for address in ["localhost:\(port)", ":\(port)"] {
      try client.send("local c = moonport.connect('\(address)') return c and c:send('x') and c:close()\n")
      #expect(try listener.accept().receive(exactly: 1) == Array("x".utf8))
      #expect(try client.receiveLine() == "true")
    }
  }

  @Test func `of several addresses one that does not answer leaves time for the next`() throws {
    let deaf = try DeafListener(version6: true)
    guard let listener = try? TestListener("127.0.0.1:\(deaf.port)") else { return }
    let server = try serve()
    let client = try server.connect()
    try client.send("local c, why = moonport.connect(':\(deaf.port)', { timeout = 15 }) return c and c.peer or why\n")
    _ = try listener.accept()
    #expect(try client.receiveLine() == "127.0.0.1:\(deaf.port)")
  }

  @Test func `connect fails with a reason for each cause`() throws {
    let server = try serve()
    let client = try server.connect()
    let gone = try TestListener().address
    #expect(try client.ask("return moonport.connect('\(gone)')") == "nil refused")
    let port = gone.split(separator: ":").last!
    #expect(try client.ask("return moonport.connect('localhost:\(port)')") == "nil refused")
    #expect(try client.ask("return moonport.connect(':\(port)')") == "nil refused")
    #expect(try client.ask("return moonport.connect('unix:/nowhere/at/all')") == "nil not found")
    #expect(try client.ask("return moonport.connect('unix:/etc/hostname')") == "nil refused")
    #expect(try client.ask("return moonport.connect('no name:80')") == "nil not found")
    #expect(try client.ask("return moonport.connect('a..b:80')") == "nil not found")
    let deaf = try DeafListener()
    #expect(try client.ask("return moonport.connect('\(deaf.address)', { timeout = 0.2 })") == "nil timeout")
    let before = try server.descriptorCount()
    for _ in 0..<20 { _ = try client.ask("return moonport.connect('\(deaf.address)', { timeout = 0.001 })") }
    #expect(try server.descriptorCount() == before)
  }

  @Test func `connect leaves descriptors for clients and the operator, and says so`() throws {
    let server = try serve { $0.descriptorsMax = 64 }
    let client = try server.connect()
    let answer = try client.ask(
      """
      for i = 1, 100 do local c, why = moonport.connect(conn.address) \
      if not c then for _, c in ipairs(kept) do c:abort() end return i > 10, why end kept[i] = c end
      """)
    #expect(answer == "true too many connections")
    #expect(try server.control("status").status == .exited(0))
    #expect(try client.ask("local c = moonport.connect(conn.address) return c ~= nil") == "true")
  }

  @Test func `wrong use of connect names the function, the argument and the line`() throws {
    let server = try serve()
    let client = try server.connect()
    for (code, message) in [
      ("connect()", "line:1: bad argument #1 to 'connect' (string expected, got no value)"),
      ("connect(1)", "line:1: bad argument #1 to 'connect' (string expected, got number)"),
      ("connect('a:1', 1)", "line:1: bad argument #2 to 'connect' (table expected, got number)"),
      (
        "connect('a:1', { to = 1 })",
        "line:1: moonport.connect: unknown option \"to\"; it knows codec, handler, timeout"
      ),
      ("connect('a:1', { timeout = -1 })", "line:1: moonport.connect: option 'timeout' must be a number of seconds"),
      ("connect('a:1', { codec = 'x' })", "line:1: moonport.connect: unknown codec \"x\""),
      ("connect('a:1', { handler = 1 })", "line:1: moonport.connect: option 'handler' must be a table"),
      ("connect('a:1', { handler = { on_message = 1 } })", "handler 'on_message' must be a function"),
      (
        "connect('a:1', { handler = setmetatable({}, { __index = { on_close = 1 } }) })",
        "line:1: moonport.connect: handler 'on_close' must be a function, not 1"
      ),
      ("connect('a:1', { handler = { on_mesage = print } })", "unknown handler 'on_mesage'"),
      ("connect('a')", "line:1: moonport.connect: \"a\": the port is missing; an address is \"host:port\""),
      ("connect('a:0')", "the port is not a number from 1 to 65535"),
      ("resolve()", "line:1: bad argument #1 to 'resolve' (string expected, got no value)"),
      ("resolve('a', -1)", "line:1: resolve: the timeout must be at least 0 seconds"),
      ("pipe(conn)", "line:1: bad argument #2 to 'pipe' (connection expected, got no value)"),
      ("pipe(1, conn)", "line:1: bad argument #1 to 'pipe' (connection expected, got number)"),
    ] {
      let answer = try client.ask("moonport.\(code)")
      #expect(contains(answer, message), "\(code): \(answer)")
    }
  }

  @Test func `nothing connects while a script loads, nor where nothing can wait`() throws {
    let server = try MoonportProcess.serving(
      """
      local ok, problem = pcall(moonport.connect, "127.0.0.1:1", { codec = { decode = print, encode = print } })
      local _, other = pcall(moonport.resolve, "localhost")
      local _, third = pcall(moonport.pipe, 1, 2)
      function h.on_open(conn) conn:send(tostring(ok), " ", problem) conn:send(other) conn:send(third) end
      """)
    let client = try server.connect()
    #expect(contains(try client.receiveLine(), "false connect cannot wait here"))
    #expect(contains(try client.receiveLine(), "resolve cannot wait here"))
    _ = try client.receiveLine()
  }

  // MARK: resolve

  @Test func `resolve gives the addresses of a name as texts, a literal itself, and a reason for what is no name`()
    throws
  {
    let server = try serve(workers: 2)
    let client = try server.connect()
    #expect(
      try client.ask("local t = moonport.resolve('localhost') return t[1] == '127.0.0.1' or t[1] == '::1'") == "true")
    #expect(try client.ask("return table.concat(moonport.resolve('127.0.0.1'), '+')") == "127.0.0.1")
    #expect(try client.ask("return table.concat(moonport.resolve('::1', 0), '+')") == "::1")
    #expect(try client.ask("return moonport.resolve('a..b')") == "nil not found")
    #expect(try client.ask("return moonport.resolve('')") == "nil not found")
    let many =
      "for i = 1, 300 do kept[i] = moonport.spawn(moonport.resolve, i % 2 == 0 and 'localhost' or 'no such ' .. i % 9) end "
      + "local n, m = 0, 0 for i = 1, 300 do if kept[i]:wait() then n = n + 1 else m = m + 1 end end return n, m"
    #expect(try client.ask(many) == "150 150")
    // The threads that look names up are few, whatever is asked.
    #expect(try server.threadCount() < 16)
    try server.stop()
  }

  // MARK: messages

  @Test func `without a handler the messages wait for receive, and the server stops reading`() throws {
    let server = try serve()
    let client = try server.connect()
    let listener = try TestListener()
    try client.send("kept[1] = moonport.connect('\(listener.address)') return 'ok'\n")
    let upstream = try listener.accept()
    #expect(try client.receiveLine() == "ok")
    let piece = (0..<65_536).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) }
    var sent = 0
    let resident = try server.residentBytes()
    // Sending stops for good once the buffers of both kernels ends are full.
    var idle = 0
    while idle < 50 {
      let count = try upstream.trySend(Array(piece[(sent % piece.count)...]))
      sent += count
      idle = count == 0 ? idle + 1 : 0
      if count == 0 { usleep(2_000) }
      #expect(sent < 200_000_000, "the server went on reading")
      if sent >= 200_000_000 { return }
    }
    #expect(try server.residentBytes() - resident < 4_000_000)
    try upstream.halfClose()
    let answer = try client.ask(
      "local n, sum = 0, 0 for m in kept[1]:messages() do n = n + #m for i = 1, #m, 4099 do sum = sum + m:byte(i) end end return n"
    )
    #expect(answer == "\(sent)")
    #expect(try client.ask("return kept[1]:closed(), kept[1]:receive()") == "true nil closed")
  }

  @Test func `what came before the end, complete or not, can still be received`() throws {
    let server = try serve()
    let client = try server.connect()
    let listener = try TestListener()
    for (sent, code, answer) in [
      ("half", "return kept[1]:receive('*a')", "half"), ("half", "return kept[1]:receive()", "nil closed half"),
      ("a\nb\nc", "return kept[1]:receive(), kept[1]:receive(), kept[1]:receive(1)", "a b c"),
      ("", "return kept[1]:receive()", "nil closed"),
    ] {
      try client.send(
        "kept[1] = moonport.connect('\(listener.address)', { codec = 'line' }) return kept[1]:receive()\n")
      let upstream = try listener.accept()
      try upstream.send("go\n\(sent)")
      try upstream.halfClose()
      #expect(try client.receiveLine() == "go")
      _ = try client.ask("moonport.sleep(0.05)")
      #expect(try client.ask(code).hasPrefix(answer), "\(sent)")
      #expect(try upstream.waitForEnd() == .closed)
    }
  }

  @Test func `a handler table gets the connection's events, from on_open to on_close`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_message(conn, address)
        local up = {}
        function up.on_open(c) c.ctx.log = "open" c:send("first") moonport.sleep(0.01) c.ctx.log = c.ctx.log .. " woke" end
        function up.on_message(c, text)
          c.ctx.log = c.ctx.log .. " " .. text
          if text == "fail" then error("oops") end
          if text == "quit" then c:close("asked") end
        end
        function up.on_error(c, message) c.ctx.log = c.ctx.log .. " error" end
        function up.on_close(c, reason) conn:send(c.ctx.log, " ", reason) end
        local c = moonport.connect(address, { codec = "line", handler = up })
        conn:send("connected ", c.peer)
      end
      """)
    let client = try server.connect()
    let listener = try TestListener()
    for (last, reason) in [("quit\n", "quit asked"), ("", "peer")] {
      try client.send(listener.address + "\n")
      let upstream = try listener.accept()
      #expect(try upstream.receiveLine() == "first")
      #expect(try client.receiveLine() == "connected \(listener.address)")
      try upstream.send("one\nfail\ntwo\n\(last)")
      try upstream.halfClose()
      #expect(try client.receiveLine() == "open woke one fail error two \(reason)")
      #expect(try upstream.waitForEnd() == .closed)
    }
    #expect(!contains(server.errors, "oops"))
  }

  @Test func `an error in a handler without on_error closes that connection and is logged`() throws {
    let server = try serve()
    let client = try server.connect()
    let listener = try TestListener()
    try client.send(
      "kept[1] = moonport.connect('\(listener.address)', { handler = { on_message = function() error('oops') end } })\n"
    )
    let upstream = try listener.accept()
    _ = try client.receiveLine()
    try upstream.send("x")
    #expect(try upstream.waitForEnd() == .closed)
    try server.waitForErrors(containing: "oops")
    #expect(try client.ask("return kept[1]:closed()") == "true")
  }

  @Test func `a codec in Lua serves an outgoing connection, and goes with it`() throws {
    let server = try serve()
    let client = try server.connect()
    let listener = try TestListener()
    for _ in 0..<3 {
      try client.send(
        """
        local codec = { decode = function(s, i) if #s >= i + 1 then return s:sub(i, i + 1), i + 2 end end, encode = function(m) return "<" .. m .. ">" end } \
        local c = moonport.connect("\(listener.address)", { codec = codec }) c:send("a") local r = c:receive() .. c:receive() c:close() return r

        """)
      let upstream = try listener.accept()
      #expect(try upstream.receive(exactly: 3) == Array("<a>".utf8))
      try upstream.send("wxyz")
      #expect(try client.receiveLine() == "wxyz")
    }
  }

  // MARK: what it is not

  @Test func `an outgoing connection is no client, but has an id that is good everywhere`() throws {
    let server = try serve(workers: 2)
    let clients = [try server.connect(), try server.connect()]
    let listener = try TestListener()
    try clients[0].send("kept[1] = moonport.connect('\(listener.address)', { codec = 'line' }) return kept[1].id\n")
    let upstream = try listener.accept()
    let id = try clients[0].receiveLine()
    #expect(try clients[0].ask("return moonport.count()") == "2")
    try clients[0].send(
      "moonport.broadcast('to clients') kept[1]:join('room') moonport.broadcast('to the room', { room = 'room' })\n")
    #expect(try clients[0].receiveLines(2) == ["to clients", ""])
    #expect(try upstream.receiveLine() == "to the room")
    #expect(try clients[1].receiveLine() == "to clients")
    #expect(try clients[1].ask("return moonport.count('room'), moonport.send(\(id), 'by id')") == "1 true")
    #expect(try upstream.receiveLine() == "by id")
    let status = try server.status()
    #expect(status["connections"].integer == 2)
    let row = try server.done("connections").split(separator: "\n").first {
      contains(String($0), "-> \(listener.address)")
    }
    #expect(row != nil, "connections does not show who made it")
    try server.done("kick", id)
    #expect(try upstream.waitForEnd() == .closed)
    #expect(try clients[0].ask("return kept[1]:closed()") == "true")
  }

  @Test(arguments: ["made", "refused"])
  func `connecting again and again to what answers at once does not keep the clients waiting`(outcome: String) throws {
    let folder = try TemporaryFolder()
    let listener = try TestListener("unix:\(folder.file("up.sock"))")
    if outcome == "refused" { unlink(folder.file("up.sock")) }
    let server = try serve()
    let (busy, other) = (try server.connect(), try server.connect())
    #expect(try other.ask("return 1") == "1")
    try busy.send(
      "while true do local up = moonport.connect('\(listener.address)', { timeout = 0.01 }) if up then up:abort() end end\n"
    )
    // Its socket takes some thousand before it is full; those asked meanwhile are answered.
    for number in 0..<20 { #expect(try other.ask("return \(number)") == "\(number)") }
  }

  @Test func `a connect whose task is cancelled leaves nothing behind`() throws {
    let server = try serve()
    let client = try server.connect()
    let deaf = try DeafListener()
    _ = try client.ask("return 1")
    let before = try server.descriptorCount()
    let code =
      "for i = 1, 20 do kept[i] = moonport.spawn(moonport.connect, '\(deaf.address)') end moonport.sleep(0.02) "
      + "for i = 1, 20 do kept[i]:cancel() end return select(2, kept[20]:wait())"
    #expect(try client.ask(code) == "cancelled")
    try eventually("the sockets are closed") { try server.descriptorCount() == before }
    // One that may succeed at the same moment: either way its end is noticed.
    let listener = try TestListener()
    _ = try client.ask(
      "local t = moonport.spawn(moonport.connect, '\(listener.address)') moonport.after(0, function() t:cancel() end)")
    try listener.accept().close()
    try eventually("that one is closed") { try server.descriptorCount() == before }
    // One that its own on_open cancels: nobody gets it.
    _ = try client.ask(
      "kept.t = moonport.spawn(moonport.connect, '\(listener.address)', { handler = { on_open = function() kept.t:cancel() end,"
        + " on_close = function(_, reason) kept.reason = reason end } })")
    #expect(try listener.accept().waitForEnd() == .closed)
    try eventually("its on_close was called") { try client.ask("return kept.reason") == "cancelled" }
    try eventually("it is closed, too") { try server.descriptorCount() == before }
  }

  @Test func `wrong use of connect leaves no codec behind, and a worker that has as many as it can says so`() throws {
    let server = try serve()
    let client = try server.connect()
    let own = "codec = { decode = function() end, encode = function(text) return text end }"
    let wrong = "pcall(moonport.connect, 'a:1', { \(own), handler = setmetatable({}, { __index = { on_close = 1 } }) })"
    let code = "for i = 1, 20000 do \(wrong) end return select(2, \(wrong))"
    for _ in 0..<4 { #expect(contains(try client.ask(code), "must be a function, not 1")) }
    #expect(try client.ask("return conn:set_codec('line')") == "true")
    #expect(
      contains(try client.ask("return conn:set_codec { decode = print, encode = print, max_length = 0 }"), "from 1 to"))
  }
}
