// Short runs of the whole server for the thread sanitizer: what several threads do at once, then a clean end.
//
// Without a sanitizer they are plain tests. With one, the server under test is sanitized, and any report fails the test.

import Glibc
import TestSupport
import Testing

@Suite(.serialized) struct SanitizerTests {
  /// Every message is answered, passed on to all and to a room, and sent to its sender by id from a timer.
  private static func busy(_ version: String) -> String {
    script(
      version,
      """
      function handlers.on_open(conn) conn:join("room" .. conn.id % 3) end
      function handlers.on_message(conn, text)
        conn.ctx.count = (conn.ctx.count or 0) + 1
        if text == "quit" then return conn:close("asked") end
        if text == "wait" then text = conn:receive("*l", 0.01) or "late" end
        conn:send("answer " .. moonport.generation .. " " .. text)
        moonport.broadcast("news " .. text, { room = "room" .. conn.ctx.count % 3, except = conn })
        if conn.ctx.count % 8 == 0 then moonport.broadcast("all " .. moonport.count()) end
        local id = conn.id
        moonport.after(0.001, function()
          moonport.send(id + 1, "neighbour")
          moonport.write(id - 1, "neighbour\\n")
          if text == "cut" then moonport.close(id + 1) end
        end)
      end
      function handlers.on_save() return { version = handlers.version } end
      function handlers.on_restore(saved, old) assert(saved.version == old) end
      """)
  }

  /// Ends the server and fails on anything that a sanitizer had to say, in its errors or in a report's file.
  private func expectCleanEnd(_ server: MoonportProcess) throws {
    server.sendSignal(SIGTERM)
    // 3 where clients of the test were still there.
    let status = try server.waitForExit()
    #expect(status == .exited(0) || status == .exited(3))
    for mark in ["WARNING: ThreadSanitizer", "ERROR: AddressSanitizer", "runtime error:", "Fatal error"] {
      #expect(!contains(server.errors, mark), "\(server.errors)")
    }
  }

  private func start(_ text: String, _ folder: TemporaryFolder? = nil) throws -> MoonportProcess {
    try MoonportProcess(script: text, folder: folder) {
      $0.workers = 4
      if Patience.sanitizer == "thread" { $0.environment = ["TSAN_OPTIONS": Self.options] }
    }
  }

  /// The options of the run with what these tests rely on: a report ends the server at once, with a status of its own.
  private static var options: String {
    let given = getenv("TSAN_OPTIONS").map { String(cString: $0) + ":" } ?? ""
    return given + "halt_on_error=1:exitcode=66"
  }

  @Test("reloads, broadcasts and closes across four workers under load")
  func everythingAtOnce() throws {
    let server = try start(Self.busy("0"))
    let isOver = Flag()
    let clients = TestThread {
      try inParallel(12, timeout: Patience.scaled(120)) { number in
        while !isOver.isRaised { try Self.visit(server, number) }
      }
    }
    for version in 1...12 {
      try server.reload(Self.busy("\(version)"))
      try server.done("broadcast", "from the operator")
      _ = try server.status()
      _ = try server.done("connections")
    }
    try server.done("rollback")
    isOver.raise()
    try clients.join(timeout: Patience.scaled(120))
    #expect(try server.status()["generation"].integer == 14)
    try expectCleanEnd(server)
  }

  /// One client's stay: some requests, then one of the ways to leave.
  private static func visit(_ server: MoonportProcess, _ number: Int) throws {
    let client = try server.connect()
    for turn in 0..<20 {
      try client.send(turn % 5 == 4 ? "wait\nmore\n" : "line \(turn)\n")
      // A neighbour may have cut the connection: then the stay is over.
      while true {
        guard let line = try client.receiveLineOrEnd() else { return }
        if line.hasPrefix("answer ") { break }
      }
    }
    switch number % 3 {
    case 0: try client.send("quit\n")
    case 1: client.reset()
    default: try client.send("cut\n")
    }
    if number % 3 == 0 { _ = try client.waitForEnd() }
  }

  @Test("failing reloads, signals and a change of listeners under load")
  func failingReloads() throws {
    let folder = try TemporaryFolder()
    let server = try start(Self.busy("0"), folder)
    let isOver = Flag()
    let clients = TestThread {
      try inParallel(6, timeout: Patience.scaled(120)) { number in
        while !isOver.isRaised { try Self.visit(server, number) }
      }
    }
    let socket = "unix:\(folder.file("extra.sock"))"
    for round in 0..<4 {
      try server.replaceScript(Self.busy("x") + "error('no')")
      _ = try server.refused("reload")
      let body = "function handlers.on_restore() if moonport.worker.id == 2 then error('no') end end"
      try server.replaceScript(script("y", body))
      _ = try server.refused("reload")
      let listen = "moonport.listen { address = '\(socket)', codec = 'line' }\n"
      try server.reload(
        round % 2 == 0 ? Self.busy("0").replacingFirst("local handlers", listen + "local handlers") : Self.busy("0"))
      server.sendSignal(SIGHUP)
    }
    isOver.raise()
    try clients.join(timeout: Patience.scaled(120))
    try expectCleanEnd(server)
  }

  @Test("a server that ends while clients send, with output queued and handlers suspended")
  func endUnderLoad() throws {
    let server = try start(Self.busy("0"))
    let clients = TestThread {
      try inParallel(12, timeout: Patience.scaled(120)) { number in
        let client = try server.connect()
        // Until the server ends it, in whatever way.
        for turn in 0..<100_000 {
          do {
            try client.send(turn % 3 == 0 ? "wait\n" : "line\n")
            if turn % 4 == 0 { _ = try client.receiveLine() }
          } catch { return }
        }
      }
    }
    try eventually("all are at work") { try server.status()["messages_in"].integer ?? 0 > 500 }
    try server.reload(Self.busy("1"))
    try server.done("stop")
    try clients.join(timeout: Patience.scaled(120))
    try expectCleanEnd(server)
  }
}

extension String {
  /// The text with the first `part` replaced.
  fileprivate func replacingFirst(_ part: String, _ new: String) -> String {
    guard let range = self.firstRange(of: part) else { return self }
    return self.replacingCharacters(range, with: new)
  }

  private func replacingCharacters(_ range: Range<String.Index>, with new: String) -> String {
    String(self[..<range.lowerBound]) + new + String(self[range.upperBound...])
  }
}
