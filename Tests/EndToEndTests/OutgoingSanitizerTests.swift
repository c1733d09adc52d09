// Short runs with outgoing connections, pipes and look-ups for the sanitizers: on several workers at once, with reloads and a
// clean end. Without a sanitizer they are plain tests.

import Glibc
import TestSupport
import Testing

@Suite(.serialized) struct OutgoingSanitizerTests {
  /// One listener echoes; the other one pipes each client to it, after looking the name up, or asks it and answers.
  private static func text(_ version: String) -> String {
    """
    local moonport = require "moonport"
    local echo = arg[1]
    moonport.listen { address = echo, codec = "raw", handler = { on_message = function(conn, bytes) conn:send(bytes) end } }
    moonport.listen { address = "127.0.0.1:0", codec = "line" }
    local handlers = { version = "\(version)" }
    handlers.up = { on_message = function(c, text) moonport.send(c.ctx.client, "up " .. text) c:close() end }
    function handlers.on_message(conn, text)
      if text == "pipe" then
        moonport.resolve("localhost")
        local up = moonport.connect(echo)
        if up then moonport.pipe(conn, up) end
      elseif text == "ask" then
        local up = moonport.connect(echo, { codec = "line" })
        if not up then return conn:send("none") end
        up:send("asked")
        conn:send(up:receive(nil, 5) or "late")
        up:close()
      elseif text == "handler" then
        local up = moonport.connect(echo, { codec = "line", handler = handlers.up })
        if not up then return conn:send("none") end
        up.ctx.client = conn.id
        up:send("handled")
      else
        conn:send(text)
      end
    end
    return handlers
    """
  }

  @Test("connects, pipes and look-ups of many clients over four workers, with reloads")
  func everythingAtOnce() throws {
    let folder = try TemporaryFolder()
    let path = "unix:\(folder.file("echo.sock"))"
    let server = try MoonportProcess(script: Self.text("0"), folder: folder) {
      $0.workers = 4
      $0.listeners = 2
      $0.scriptArguments = [path]
      if Patience.sanitizer == "thread" { $0.environment = ["TSAN_OPTIONS": Self.options] }
    }
    let address = try #require(server.addresses.first { !$0.hasPrefix("unix:") })
    let isOver = Flag()
    let clients = TestThread {
      try inParallel(8, timeout: Patience.scaled(120)) { number in
        var round = 0
        while !isOver.isRaised || round < 3 {
          round += 1
          let client = try TestClient(address)
          do {
            try Self.visit(client, (number + round) % 3, round)
          } catch let failure as TestFailure {
            // A handler that waited over two reloads is ended with its connection; nothing else may happen.
            guard
              contains(failure.description, "ended") || contains(failure.description, "reset")
                || contains(failure.description, "Broken pipe")
            else { throw failure }
          }
        }
      }
    }
    for version in 1...8 { try server.reload(Self.text("\(version)")) }
    isOver.raise()
    try clients.join(timeout: Patience.scaled(120))
    server.sendSignal(SIGTERM)
    server.sendSignal(SIGTERM)
    #expect(try server.waitForExit() == .exited(0))
    for mark in ["WARNING: ThreadSanitizer", "ERROR: AddressSanitizer", "runtime error:", "Fatal error"] {
      #expect(!contains(server.errors, mark), "\(server.errors)")
    }
  }

  /// One client's stay.
  private static func visit(_ client: TestClient, _ kind: Int, _ round: Int) throws {
    switch kind {
    case 0:
      try client.send("pipe\n")
      let bytes = (0..<200_000).map { UInt8(truncatingIfNeeded: $0 &* 37 &+ round) }
      let sender = TestThread {
        try client.send(bytes)
        if round % 2 == 0 { try client.halfClose() }
      }
      #expect(try client.receive(exactly: bytes.count) == bytes)
      try sender.join(timeout: Patience.seconds)
      if round % 4 == 1 { client.reset() }
    case 1: #expect(try client.ask("ask") == "asked")
    default: #expect(try client.ask("handler") == "up handled")
    }
  }

  /// As given for the run, and a report ends the server at once.
  private static var options: String {
    let given = getenv("TSAN_OPTIONS").map { String(cString: $0) + ":" } ?? ""
    return given + "halt_on_error=1:exitcode=66"
  }
}
