// `moonport bench`: real loads, on the real server and on ones that misbehave.
//
// Must never know: how the load is made.

import Glibc
import TestSupport
import Testing

@Suite struct BenchTests {
  private static let echo = """
    local moonport = require "moonport"
    moonport.listen { address = "127.0.0.1:0", codec = arg[1] or "line" }
    return { on_message = function(conn, message) conn:send(message) end }
    """

  private func bench(_ arguments: String...) throws -> ToolResult {
    try MoonportProcess.runTool(["bench"] + arguments)
  }

  /// Runs a load and returns its JSON, which is there after a failure too.
  private func figures(_ arguments: String...) throws -> (status: TestSupport.ExitStatus, json: JSON, errors: String) {
    let result = try MoonportProcess.runTool(["bench", "--json", "--duration", "0.3"] + arguments)
    return (result.status, try JSON(parsing: result.output), result.errors)
  }

  /// The messages that the server counted.
  private func messagesIn(_ server: MoonportProcess) throws -> Int {
    try JSON(parsing: server.control("status", "--json").output)["messages_in"].integer ?? -1
  }

  private func number(_ value: JSON) -> Double { value.number ?? -1 }

  @Test(arguments: ["raw", "line", "netstring"], ["1", "16"])
  func `every echo comes back and is counted, once`(codec: String, inFlight: String) throws {
    let server = try MoonportProcess(script: BenchTests.echo) { $0.scriptArguments = [codec] }
    let (status, json, errors) = try figures(
      server.address, "--codec", codec, "--pipeline", inFlight, "--connections", "7", "--size", "100")
    #expect(status == .exited(0), "\(errors)")
    #expect(number(json["wrong"]) == 0)
    #expect(number(json["messages_sent"]) > 0)
    #expect(number(json["messages_back"]) == number(json["messages_sent"]))
    // Raw messages are what the reads bring.
    if codec != "raw" { #expect(try messagesIn(server) == json["messages_sent"].integer) }
    let latency = json["latency_ns"]
    #expect(number(latency["min"]) > 0)
    #expect(number(latency["p50"]) <= number(latency["p99"]))
    let rows = latency["histogram"].elements
    #expect(rows.reduce(0) { $0 + number($1["count"]) } == number(json["messages_back"]))
  }

  @Test func `messages longer than any read come back whole`() throws {
    let server = try MoonportProcess(script: BenchTests.echo) { $0.scriptArguments = ["netstring"] }
    let (status, json, errors) = try figures(
      server.address, "--codec", "netstring", "--size", "300000", "--connections", "3", "--pipeline", "4")
    #expect(status == .exited(0), "\(errors)")
    #expect(number(json["messages_back"]) > 0)
  }

  @Test func `a rate is kept where the server is fast enough`() throws {
    let server = try MoonportProcess(script: BenchTests.echo)
    let (status, json, errors) = try figures(server.address, "--rate", "1000", "--connections", "3")
    #expect(status == .exited(0), "\(errors)")
    // 0.3 s at one in a millisecond, the first at once; a busy machine may make it longer but sends all that was due.
    let sent = number(json["messages_sent"]) + number(json["overdue"])
    #expect(sent >= 300)
    #expect(sent <= number(json["seconds"]) * 1000 + 2)
  }

  /// In a closed loop nobody sends while the server stands still, so only one message would show it.
  @Test func `a stall of the server shows in all the messages that were due meanwhile`() throws {
    let script = """
      local moonport = require "moonport"
      moonport.listen { address = "127.0.0.1:0", codec = "line" }
      local count = 0
      return { on_message = function(conn, line)
        count = count + 1
        if count == 50 then local ends = os.clock() + 0.1 while os.clock() < ends do end end
        conn:send(line)
      end }
      """
    let server = try MoonportProcess(script: script) { $0.workers = 1 }
    let (status, json, _) = try figures(server.address, "--rate", "1000", "--connections", "1", "--pipeline", "1")
    #expect(status == .exited(0))
    let latency = json["latency_ns"]
    let rows = latency["histogram"].elements
    let slow = rows.filter { number($0["from"]) >= 10_000_000 }.reduce(0) { $0 + number($1["count"]) }
    #expect(slow + number(json["overdue"]) >= 50, "\(json)")
  }

  @Test func `wrong echoes are counted, shown, and the exit status`() throws {
    let script = """
      local moonport = require "moonport"
      moonport.listen { address = "127.0.0.1:0", codec = "line" }
      return { on_message = function(conn, line) conn:send(line == "ping" and conn.ctx.wrong and "pong" or line)
        conn.ctx.wrong = true end }
      """
    let server = try MoonportProcess(script: script)
    let (status, json, errors) = try figures(server.address, "--message", "ping", "--connections", "2")
    #expect(status == .exited(1))
    #expect(number(json["wrong"]) > 0)
    #expect(number(json["wrong"]) == number(json["messages_back"]) - 2)
    #expect(errors.contains(#"sent "ping" (4 bytes), got back "pong" (4 bytes)"#))
  }

  @Test func `a server that closes early is named with what it answered`() throws {
    let script = """
      local moonport = require "moonport"
      moonport.listen { address = "127.0.0.1:0", codec = "line" }
      return { on_message = function(conn, line) conn:send(line) conn:close() end }
      """
    let server = try MoonportProcess(script: script)
    let result = try bench(server.address, "--duration", "0.3", "--connections", "2")
    #expect(result.status == .exited(1))
    #expect(result.output.contains("2 connections lost"))
    #expect(result.errors.contains("was closed by the server after 1 answers"))
  }

  @Test func `a server that answers nothing is an error, unless nothing is expected`() throws {
    let script = """
      local moonport = require "moonport"
      moonport.listen { address = "127.0.0.1:0", codec = "line" }
      return { on_message = function() end }
      """
    let server = try MoonportProcess(script: script)
    let silent = try bench(server.address, "--duration", "0.1", "--connections", "2")
    #expect(silent.status == .exited(1))
    #expect(silent.errors.contains("2 messages had no answer"))
    let (status, json, errors) = try figures(server.address, "--expect", "none", "--connections", "2")
    #expect(status == .exited(0), "\(errors)")
    // The two of before were not answered, but they arrived.
    try eventually("all arrived") { try messagesIn(server) == Int(number(json["messages_sent"])) + 2 }
  }

  @Test func `ctrl-C shows the figures so far`() throws {
    let server = try MoonportProcess(script: BenchTests.echo)
    let child = try ChildProcess(Launch(MoonportProcess.executable(), ["bench", server.address, "--duration", "600"]))
    try eventually("messages come in") { try messagesIn(server) > 100 }
    child.sendSignal(SIGINT)
    #expect(try child.waitForExit() == .exited(0))
    #expect(child.output.text.contains("ended early"))
    #expect(child.output.text.contains("messages/s"))
  }

  @Test func `a terminal gets a line of progress, and a pipe none`() throws {
    let server = try MoonportProcess(script: BenchTests.echo)
    let quiet = try bench(server.address, "--duration", "1.2", "--connections", "1")
    #expect(quiet.errors.isEmpty)
    let command = "\(try MoonportProcess.executable()) bench \(server.address) --duration 3 --connections 1 2>&1"
    var launch = Launch("/bin/sh", ["-c", command])
    launch.streams = .terminal
    let child = try ChildProcess(launch)
    #expect(try child.waitForExit() == .exited(0))
    // The report says "messages/s for".
    #expect(contains(child.output.text, "\u{1B}[K"))
    #expect(contains(child.output.text, "messages/s  p50 "))
  }

  @Test func `nobody there is said at once`() throws {
    let result = try bench("127.0.0.1:1")
    #expect(result.status == .exited(1))
    #expect(result.errors == "moonport: cannot measure 127.0.0.1:1: Connection refused\n")
    #expect(result.output.isEmpty)
  }

  @Test(arguments: [
    (["--connections", "0"], "--connections takes 1 to 60000, not 0"),
    (["--duration", "0"], "--duration takes seconds from 0.1 to 86400, not 0"),
    (["--rate=-3"], "--rate takes messages per second"),
    (["--codec", "lines"], "--codec lines: "),
    (["--message", "x", "--size", "3"], "--message has a size of its own"),
    (["--expect", "answer"], "answer"),
  ]) func `wrong usage is said before anything is opened`(arguments: [String], message: String) throws {
    let result = try MoonportProcess.runTool(["bench", "127.0.0.1:1"] + arguments)
    #expect(result.status == .exited(64))
    #expect(result.errors.contains(message), "\(result)")
  }
}
