// What holds clients back who come or talk too often: connection_rate, message_rate and --max-connections, and that every
// client who is turned away or cut off is counted by its reason.
//
// Must never know: anything but the program's command line, its streams and its sockets.

import Glibc
import TestSupport
import Testing

@Suite struct RateTests {
  private static let echo = """
    function h.on_message(conn, text) conn:send(text) end
    function h.on_close(conn, reason) print("closed " .. reason) end
    """

  private func refused(_ server: MoonportProcess, _ reason: String) throws -> Int {
    try server.status()["refused"][reason].integer ?? 0
  }

  // MARK: Connections

  @Test func `over connection_rate an address is accepted and closed at once, counted, and let in again in time`()
    throws
  {
    let server = try MoonportProcess.serving(
      RateTests.echo, "codec = 'line', connection_rate = { per_second = 2, burst = 3 }", address: ":0")
    let port = server.address.split(separator: ":").last.map(String.init) ?? ""
    let first = try (0..<3).map { _ in try TestClient("127.0.0.1:\(port)") }
    for client in first { #expect(try client.ask("x") == "x") }
    #expect(try TestClient("127.0.0.1:\(port)").receiveUntilEnd() == [])
    #expect(try refused(server, "connection_rate") == 1)
    #expect(try TestClient("[::1]:\(port)").ask("x") == "x", "another address has its own")
    try eventually("there is a token again") { (try? TestClient("127.0.0.1:\(port)").ask("y")) == "y" }
    for client in first { #expect(try client.ask("z") == "z", "who is in stays in") }
  }

  @Test func `a reload changes connection_rate, and takes it away`() throws {
    func text(_ rate: String) -> String {
      """
      local moonport = require "moonport"
      moonport.listen { address = "127.0.0.1:0", codec = "line"\(rate) }
      return { on_message = function(conn, text) conn:send(text) end }
      """
    }
    let server = try MoonportProcess(serving: text(", connection_rate = { per_second = 0.001, burst = 1 }"), workers: 1)
    #expect(try server.connect().ask("x") == "x")
    #expect(try server.connect().receiveUntilEnd() == [])
    try server.reload(text(""))
    for _ in 0..<20 { #expect(try server.connect().ask("x") == "x") }
  }

  @Test func `over --max-connections clients of all listeners together are turned away and counted`() throws {
    let server = try MoonportProcess(
      script: """
        local moonport = require "moonport"
        moonport.listen { address = "127.0.0.1:0", codec = "line" }
        moonport.listen { address = "127.0.0.2:0", codec = "line" }
        return { on_message = function(conn, text) conn:send(text) end }
        """
    ) {
      $0.listeners = 2
      $0.arguments = ["--max-connections", "2"]
    }
    let clients = try (0..<2).map { try server.connect(listener: $0) }
    for client in clients { #expect(try client.ask("x") == "x") }
    for index in 0..<2 { #expect(try server.connect(listener: index).receiveUntilEnd() == []) }
    #expect(try refused(server, "--max-connections") == 2)
    clients[0].close()
    try eventually("there is room again") { (try? server.connect(listener: 1).ask("y")) == "y" }
  }

  // MARK: Messages

  @Test func `over message_rate a client waits, loses nothing, and keeps nobody else waiting`() throws {
    let server = try MoonportProcess.serving(
      RateTests.echo, "codec = 'line', idle_timeout = 60, message_rate = { per_second = 100, burst = 20 }")
    let eager = try server.connect()
    let start = Deadline.uptime
    try eager.send((0..<80).map { "\($0)\n" }.joined())
    for index in 0..<20 { #expect(try eager.receiveLine() == "\(index)") }
    #expect(try server.connect().ask("calm") == "calm")
    for index in 20..<80 { #expect(try eager.receiveLine() == "\(index)") }
    // 60 messages beyond the burst at 100 a second.
    #expect(Deadline.uptime - start >= 0.58)
    #expect(!contains(server.output, "closed m") && !contains(server.output, "closed t"))
  }

  @Test func `what waits for its time is not read: a client over its rate feels it`() throws {
    let server = try MoonportProcess.serving(
      RateTests.echo, "codec = 'line', message_rate = { per_second = 0.01, burst = 1 }")
    let client = try server.connect()
    #expect(try client.ask("x") == "x")
    let lines = [UInt8](repeating: 10, count: 1 << 20)
    var sent = 0
    var idle = 0
    while idle < 50 {
      let count = try client.trySend(lines)
      sent += count
      idle = count == 0 ? idle + 1 : 0
      usleep(2000)
    }
    // What the kernel and one read of the server hold, not what the client has.
    #expect(sent < 32 << 20)
    #expect(try server.status()["bytes_in"].integer ?? .max < 200_000)
    // It can still be told apart from one that is there.
    client.reset()
    try server.waitForOutput(containing: "closed reset")
  }

  @Test func `message_rate holds for receive as for on_message, and for a codec in Lua`() throws {
    let server = try MoonportProcess(
      script: """
        local moonport = require "moonport"
        local rate = { per_second = 50, burst = 5 }
        moonport.listen { address = "127.0.0.1:0", codec = "line", message_rate = rate, handler = {
          on_open = function(conn) for line in conn:messages() do conn:send(line) end end } }
        moonport.listen { address = "127.0.0.1:0", message_rate = rate, codec = {
          decode = function(bytes, at) if #bytes >= at then return bytes:sub(at, at), at + 1 end end,
          encode = function(text) return text end } }
        moonport.listen { address = "127.0.0.1:0", message_rate = rate, handler = {
          on_open = function(conn) while true do local byte = conn:receive(1) if not byte then break end conn:write(byte) end end } }
        return { on_message = function(conn, text) conn:write(text) end }
        """
    ) { $0.listeners = 3 }
    for index in 0..<3 {
      let client = try server.connect(listener: index)
      let start = Deadline.uptime
      let text = (0..<30).map { index == 0 ? "\($0)\n" : "\($0 % 10)" }.joined()
      try client.send(text)
      #expect(String(decoding: try client.receive(exactly: text.utf8.count), as: UTF8.self) == text)
      // 25 beyond the burst at 50 a second.
      #expect(Deadline.uptime - start >= 0.48)
      try client.send(index == 0 ? "last\n" : "l")
      try client.halfClose()
      #expect(try client.receiveTextUntilEnd() == (index == 0 ? "last\n" : "l"))
    }
  }

  @Test func `under the policy close, one message too many ends the connection, and no incomplete one does`() throws {
    let server = try MoonportProcess.serving(
      RateTests.echo, "codec = 'line', message_rate = { per_second = 0.01, burst = 3, policy = 'close' }")
    let client = try server.connect()
    try client.send("1\n2\n3\nincompl")
    #expect(try client.receiveLines(3) == ["1", "2", "3"])
    try client.send("ete")
    #expect(try client.tryReceive(for: 0.05) == nil)
    #expect(server.output == "")
    try client.send("\n")
    #expect(try client.waitForEnd() == .closed)
    try server.waitForOutput(containing: "closed message rate\n")
    #expect(try refused(server, "message_rate") == 1)
  }

  @Test func `a reload changes message_rate for the connections there are, those held back included`() throws {
    func text(_ rate: String) -> String {
      """
      local moonport = require "moonport"
      moonport.listen { address = "127.0.0.1:0", codec = "line"\(rate) }
      return { on_message = function(conn, text) conn:send(text) end }
      """
    }
    let slow = text(", message_rate = { per_second = 0.001, burst = 1 }")
    let server = try MoonportProcess(serving: slow, workers: 1)
    let client = try server.connect()
    try client.send("0\n1\n2\n3\n")
    #expect(try client.receiveLine() == "0")
    #expect(try client.tryReceive(for: 0.05) == nil)
    // The bucket is filled, also by the same rate.
    try server.reload(slow)
    #expect(try client.receiveLine() == "1")
    #expect(try client.tryReceive(for: 0.05) == nil)
    try server.reload(text(""))
    #expect(try client.receiveLines(2) == ["2", "3"])
    try server.reload(text(", message_rate = { per_second = 0.001, burst = 2, policy = 'close' }"))
    try client.send("4\n5\n6\n")
    #expect(try client.receiveLines(2) == ["4", "5"])
    #expect(try client.waitForEnd() == .closed)
  }

  // MARK: Reasons

  @Test func `every end that a limit causes is counted by the option's name`() throws {
    let server = try MoonportProcess(
      script: """
        local moonport = require "moonport"
        moonport.listen { address = "127.0.0.1:0", codec = { type = "line", max_length = 10 }, idle_timeout = 0.1 }
        moonport.listen { address = "127.0.0.1:0", codec = "line", message_timeout = 0.1,
          output_limit = { hard = 1000, soft = 1000 } }
        return { on_message = function(conn, text) conn:send(("x"):rep(50000000)) end }
        """
    ) { $0.listeners = 2 }
    try server.connect(listener: 0).send("much too long a line")
    let idle = try server.connect(listener: 0)
    let slow = try server.connect(listener: 1)
    try slow.send("begun")
    let reader = try server.connect(listener: 1)
    try reader.send("x\n")
    for client in [idle, slow] { #expect(try client.waitForEnd() == .closed) }
    _ = try reader.waitForEnd()
    let counts = try server.status()["refused"]
    for reason in ["max_length", "idle_timeout", "message_timeout", "output_limit"] {
      #expect(counts[reason].integer == 1, "\(reason): \(counts)")
    }
  }

  @Test(arguments: [
    ("connection_rate = -1", "'connection_rate' must be a number per second"),
    ("connection_rate = 'x'", "'connection_rate' must be"), ("message_rate = 0/0", "'message_rate' must be"),
    ("message_rate = {}", "message_rate: option 'per_second' is missing"),
    ("message_rate = { per_second = {} }", "option 'per_second' is missing"),
    ("message_rate = { per_second = 1, burst = 1.5 }", "option 'burst' must be an integer"),
    ("message_rate = { per_second = 1, policy = 'drop' }", "message_rate.policy must be \"pause\" or \"close\""),
    ("connection_rate = { per_second = 1, policy = 'close' }", "connection_rate: unknown option \"policy\""),
  ])
  func `a wrong rate is an error while loading that names the option and the script's line`(
    options: String, problem: String
  ) throws {
    let folder = try TemporaryFolder()
    let path = try folder.write(
      "main.lua", "local moonport = require 'moonport'\n\nmoonport.listen { address = ':0', \(options) }\nreturn {}\n")
    let result = try MoonportProcess.runTool(["check", path])
    #expect(result.status == .exited(1))
    #expect(contains(result.errors, "main.lua:3: "), "\(result)")
    #expect(contains(result.errors, problem), "\(result)")
  }
}
