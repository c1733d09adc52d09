// Every option of moonport.listen, on the built program: addresses, caps, timeouts, output limits, and errors while loading.
//
// Must never know: anything but the program's command line, its streams and its sockets.

import Glibc
import TestSupport
import Testing

@Suite struct ListenerOptionTests {
  private static let echo = """
    function h.on_message(conn, text) conn:send(text) end
    function h.on_close(conn, reason) print("closed " .. reason) end
    """

  // MARK: Addresses

  @Test(arguments: ["127.0.0.1:0", "[::1]:0", "0.0.0.0:0", "[::]:0"])
  func `an address is served, and the start-up line says its port`(address: String) throws {
    let server = try MoonportProcess.serving(ListenerOptionTests.echo, address: address)
    #expect(server.address.hasPrefix(address.dropLast(1)) && !server.address.hasSuffix(":0"))
    #expect(try server.connect().ask("x") == "x")
  }

  @Test func `":port" is every interface, over IPv4 and IPv6, and an IPv4 client is named as such`() throws {
    let server = try MoonportProcess.serving(
      "function h.on_open(conn) conn:send(conn.peer, ' ', conn.address) end", address: ":0")
    let port = server.address.split(separator: ":").last.map(String.init) ?? ""
    for host in ["127.0.0.1", "[::1]"] {
      let client = try TestClient("\(host):\(port)")
      #expect(try client.receiveLine() == "\(client.localAddress) \(host):\(port)")
    }
  }

  @Test func `a Unix socket is served, replaces a stale file, and goes with the server`() throws {
    let folder = try TemporaryFolder()
    let path = folder.file("s")
    var server = try MoonportProcess.serving(ListenerOptionTests.echo, address: "unix:\(path)", folder: folder)
    #expect(server.address == "unix:\(path)")
    #expect(try server.connect().ask("x") == "x")
    try server.kill()
    #expect(access(path, F_OK) == 0)
    server = try MoonportProcess.serving(ListenerOptionTests.echo, address: "unix:\(path)", folder: folder)
    #expect(try server.connect().ask("y") == "y")
    try server.stop()
    #expect(access(path, F_OK) != 0)
  }

  @Test func `several listeners serve side by side, each with its own options`() throws {
    let folder = try TemporaryFolder()
    let server = try MoonportProcess(
      script: """
        local moonport = require "moonport"
        moonport.listen { address = "127.0.0.1:0", codec = "line" }
        moonport.listen { address = "127.0.0.2:0", codec = { type = "netstring" } }
        moonport.listen { address = "[::1]:0", codec = "raw" }
        moonport.listen { address = "unix:\(folder.file("s"))", codec = { type = "fixed", length = 2 } }
        return { on_message = function(conn, message) moonport.broadcast("<" .. message) end }
        """, folder: folder
    ) { $0.listeners = 4 }
    for (index, (text, answer)) in [("ab\n", "<ab\n"), ("2:ab,", "3:<ab,"), ("a", "<a")].enumerated() {
      let client = try server.connect(listener: index)
      try client.send(text)
      #expect(String(decoding: try client.receive(exactly: answer.utf8.count), as: UTF8.self) == answer)
    }
    let fixed = try server.connect(listener: 3)
    try fixed.send("ab")
    #expect(try fixed.tryReceive(for: 0.05) == nil)
  }

  @Test func `a client of a Unix socket has a peer's name and ends as others do`() throws {
    let folder = try TemporaryFolder()
    let server = try MoonportProcess.serving(
      """
      function h.on_open(conn) conn:send(type(conn.peer), " ", conn.address) end
      function h.on_message(conn, text)
        if text == "close" then conn:send("bye") conn:close() end
        if text == "big" then for _ = 1, 7 do conn:write(("x"):rep(1000000)) end end
      end
      function h.on_close(conn, reason) print("closed " .. reason) end
      """, address: "unix:\(folder.file("s"))", folder: folder)
    let first = try server.connect()
    #expect(try first.receiveLine() == "string \(server.address)")
    try first.send("close\n")
    #expect(try first.receiveTextUntilEnd() == "bye\n")
    let second = try server.connect()
    try second.send("big\n")
    try second.halfClose()
    #expect(try second.receiveLine().hasPrefix("string "))
    #expect(try second.receiveUntilEnd().count == 7_000_000)
    try server.waitForOutput(containing: "closed script\nclosed peer\n")
  }

  // MARK: Caps

  @Test func `over max_connections a client is accepted and closed at once, counted, and later there is room again`()
    throws
  {
    let server = try MoonportProcess.serving(
      "function h.on_open(conn) print('opened') end " + ListenerOptionTests.echo, "codec = 'line', max_connections = 2",
      workers: 2)
    let first = try server.connect()
    let second = try server.connect()
    for client in [first, second] { #expect(try client.ask("x") == "x") }
    for _ in 0..<3 { #expect(try server.connect().receiveUntilEnd() == []) }
    #expect(contains(try server.control("status", "--json").output, "\"max_connections\":3"))
    first.close()
    try eventually("there is room again") { (try? server.connect().ask("y")) == "y" }
    #expect(try second.ask("z") == "z")
  }

  @Test func `over max_connections_per_ip only clients of that address are turned away`() throws {
    let server = try MoonportProcess.serving(
      ListenerOptionTests.echo, "codec = 'line', max_connections_per_ip = 2", address: ":0")
    let port = server.address.split(separator: ":").last.map(String.init) ?? ""
    let v4 = try (0..<2).map { _ in try TestClient("127.0.0.1:\(port)") }
    for client in v4 { #expect(try client.ask("x") == "x") }
    #expect(try TestClient("127.0.0.1:\(port)").receiveUntilEnd() == [])
    #expect(try TestClient("[::1]:\(port)").ask("x") == "x")
    v4[0].close()
    try eventually("there is room again") { (try? TestClient("127.0.0.1:\(port)").ask("y")) == "y" }
    #expect(contains(try server.control("status", "--json").output, "\"max_connections_per_ip\":"))
  }

  @Test func `a backlog and a cap of 0 are the system's and none`() throws {
    let server = try MoonportProcess.serving(
      ListenerOptionTests.echo, "codec = 'line', backlog = 64, max_connections = 0, max_connections_per_ip = 0")
    let clients = try (0..<20).map { _ in try server.connect() }
    for client in clients { #expect(try client.ask("x") == "x") }
  }

  // MARK: Timeouts

  @Test func `idle_timeout closes a client without a complete message; dripping bytes do not extend it, messages do`()
    throws
  {
    let server = try MoonportProcess.serving(ListenerOptionTests.echo, "codec = 'line', idle_timeout = 0.3")
    let lively = try server.connect()
    let silent = try server.connect()
    let dripping = try server.connect()
    var endings = 0
    try eventually("the silent and the dripping client are closed") {
      let beat = try lively.ask("beat")
      #expect(beat == "beat")
      _ = try? dripping.trySend([120])
      endings = server.outputCount(of: "closed timeout\n")
      return endings >= 2
    }
    #expect(try silent.waitForEnd() == .closed)
    #expect(try lively.ask("still here") == "still here")
    #expect(endings == 2)
  }

  @Test func `message_timeout closes a client whose message is begun and not completed, and no idle one`() throws {
    let server = try MoonportProcess.serving(ListenerOptionTests.echo, "codec = 'line', message_timeout = 0.2")
    let idle = try server.connect()
    let slow = try server.connect()
    #expect(try slow.ask("quick") == "quick")
    try slow.send("begun and ")
    try eventually("it is closed, though it drips") {
      _ = try? slow.trySend([120])
      return server.output == "closed timeout\n"
    }
    #expect(try slow.waitForEnd() == .closed)
    #expect(try idle.ask("x") == "x")
  }

  @Test func `message_timeout does not count what waits for a suspended handler or behind a pause`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_message(conn, text)
        if text == "sleep" then sleep(0.4) end
        if text == "pause" then conn:pause() moonport.after(0.4, function() conn:resume() end) end
        conn:send(text)
      end
      """, "codec = 'line', message_timeout = 0.15")
    for kind in ["sleep", "pause"] {
      let client = try server.connect()
      try client.send("\(kind)\nnext\n")
      #expect(try client.receiveLines(2) == [kind, "next"])
    }
  }

  // MARK: Errors while loading

  @Test(arguments: [
    ("addres = ':0'", "unknown option \"addres\""), ("address = 1", "'address' must be a string"),
    ("", "'address' is missing"), ("address = 'nonsense'", "'address'"), ("address = '127.0.0.1:70000'", "'address'"),
    ("address = 'unix:'", "'address'"), ("address = ':0', codec = 5", "'codec' must be a codec's name or table"),
    ("address = ':0', handler = print", "'handler' must be a table"),
    ("address = ':0', max_connections = -1", "'max_connections' must be an integer of at least 0"),
    ("address = ':0', max_connections_per_ip = 1.5", "'max_connections_per_ip' must be an integer"),
    ("address = ':0', idle_timeout = '3'", "'idle_timeout' must be a number of seconds"),
    ("address = ':0', idle_timeout = -1", "'idle_timeout' must be"),
    ("address = ':0', message_timeout = 0/0", "'message_timeout' must be"),
    ("address = ':0', backlog = true", "'backlog' must be an integer"),
    ("address = ':0', output_limit = 5", "'output_limit' must be a table"),
    ("address = ':0', output_limit = { hrd = 5 }", "output_limit: unknown option \"hrd\""),
    ("address = ':0', output_limit = { hard = '5' }", "option 'hard' must be an integer"),
    ("address = ':0', output_limit = { soft_seconds = {} }", "option 'soft_seconds' must be"),
    ("address = ':0', output_limit = { policy = 'drop' }", "output_limit.policy must be \"close\""),
    ("address = ':0', output_limit = { hard = 5, soft = 6 }", "output_limit.soft (6) must not exceed hard (5)"),
  ])
  func `a wrong option is an error while loading that names the option and the script's line`(
    options: String, problem: String
  ) throws {
    let folder = try TemporaryFolder()
    let path = try folder.write(
      "main.lua", "local moonport = require 'moonport'\n\nmoonport.listen { \(options) }\nreturn {}\n")
    for command in ["check", "run"] {
      let result = try MoonportProcess.runTool([command, path])
      #expect(result.status == .exited(1))
      #expect(contains(result.errors + result.output, "main.lua:3: "), "\(result)")
      #expect(contains(result.errors + result.output, problem), "\(result)")
    }
  }

  @Test func `listen may not be called without a table, after loading, or twice for one address`() throws {
    let folder = try TemporaryFolder()
    for (script, problem) in [
      ("require 'moonport'.listen()\nreturn {}", "main.lua:1: bad argument #1 to 'listen'"),
      (
        "local l = require 'moonport'.listen\nl { address = ':6000' }\nl { address = ':6000' }\nreturn {}",
        "main.lua:3: the script listens on :6000 twice"
      ),
    ] {
      let result = try MoonportProcess.runTool(["run", folder.write("main.lua", script)])
      #expect(result.status == .exited(1) && contains(result.errors, problem), "\(result)")
    }
    let server = try MoonportProcess.serving(
      """
      function h.on_message(conn)
        moonport.listen { address = ":0" }
      end
      """)
    try server.connect().send("x\n")
    try server.waitForErrors(containing: "main.lua:6: moonport.listen: only while the script loads")
  }

  @Test func `an address in use ends the start with the script's line`() throws {
    let taken = try TestListener()
    let folder = try TemporaryFolder()
    let script = "\nrequire 'moonport'.listen { address = '\(taken.address)' }\nreturn {}\n"
    let result = try MoonportProcess.runTool(["run", folder.write("main.lua", script)])
    #expect(result.status == .exited(1))
    #expect(contains(result.errors, "main.lua:2: cannot listen on \(taken.address)"), "\(result)")
  }

  @Test func `--listen replaces the only listener's address and keeps its options`() throws {
    let server = try MoonportProcess.serving(ListenerOptionTests.echo, address: "127.0.0.1:1") { $0.listen = "[::1]:0" }
    #expect(server.addresses.count == 1 && server.address.hasPrefix("[::1]:"))
    #expect(try server.connect().ask("x") == "x")
    let none = try MoonportProcess(script: "return { on_message = function(conn, bytes) conn:send(bytes) end }")
    let client = try none.connect()
    try client.send("raw")
    #expect(try client.receive(exactly: 3) == Array("raw".utf8))
  }
}
