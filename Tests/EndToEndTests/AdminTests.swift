// The control commands on a running server: what each does, what it prints and with which status it ends.

import Glibc
import TestSupport
import Testing

@Suite struct AdminTests {
  private static let rooms = """
    function handlers.on_open(conn) end
    function handlers.on_message(conn, text)
      local room = text:match("^join (.*)$")
      if room then conn:join(room) end
      conn:send(tostring(conn.id))
    end
    function handlers.on_close(conn, reason) print(("closed %d: %s"):format(conn.id, reason)) end
    """

  @Test("status --json has the keys of the contract, first and in order, with true figures")
  func statusForPrograms() throws {
    let server = try MoonportProcess(serving: script("1"), workers: 3)
    let clients = try server.connect(2)
    for client in clients { #expect(try client.ask("four") == "1 four") }

    let status = try server.status()

    #expect(
      status.keys == [
        "version", "generation", "uptime", "connections", "messages_in", "messages_out", "bytes_in", "bytes_out",
        "workers", "listeners", "errors", "refused", "dictionaries", "memory", "published", "delivered",
        "subscriptions", "dropped", "room_contentions", "offload", "pid", "script", "hash",
        "handlers_on_older_generations", "watch",
        "draining", "last_reload",
      ])
    #expect(status["version"].text?.isEmpty == false)
    #expect(status["generation"].integer == 1)
    #expect(status["uptime"].number ?? -1 > 0)
    #expect(status["connections"].integer == 2)
    #expect(status["messages_in"].integer == 2)
    #expect(status["messages_out"].integer == 2)
    #expect(status["bytes_in"].integer == 10)
    #expect(status["bytes_out"].integer == 14)
    #expect(status["workers"].elements.map { $0["id"].integer } == [1, 2, 3])
    #expect(status["workers"].elements.reduce(0) { $0 + ($1["connections"].integer ?? 0) } == 2)
    #expect(status["listeners"].elements.map { $0["address"].text } == [server.address])
    #expect(status["listeners"].elements.map { $0["codec"].text } == ["line"])
    #expect(status["listeners"].elements.map { $0["open"].integer } == [2])
    #expect(status["listeners"].elements.map { $0["accepted"].integer } == [2])
    #expect(status["errors"].integer == 0)
    #expect(status["refused"] == .object([]))
    #expect(status["pid"].integer == Int(server.pid))
    #expect(status["script"].text == server.scriptPath)
    #expect(status["last_reload"] == .null)
    #expect(status["draining"].boolean == false)
  }

  @Test("status counts errors of handlers and clients that were turned away, by reason")
  func statusOfTrouble() throws {
    let body = """
      function handlers.on_open(conn) if moonport.count() > 1 then return false end end
      function handlers.on_message(conn, text) error("trouble") end
      """
    let server = try MoonportProcess(serving: script("1", codec: "\"line\", max_connections = 2", body))
    let client = try server.connect()
    try eventually("the first is in") { try server.status()["connections"].integer == 1 }
    #expect(try server.connect().waitForEnd() == .closed)
    try client.send("x\n")
    #expect(try client.waitForEnd() == .closed)
    let status = try server.status()
    #expect(status["errors"].integer == 1)
    #expect(status["refused"].keys == ["refused by on_open"])
  }

  @Test("status for a person names the script, the generation, the traffic, each listener and each worker")
  func statusForPeople() throws {
    let server = try MoonportProcess(serving: script("1"), workers: 2)
    let client = try server.connect()
    #expect(try client.ask("x") == "1 x")
    let text = try server.done("status")
    for part in [
      "moonport ", "pid \(server.pid)", "generation   1", "1 open", "1 in, 1 out", server.address, "line", "Workers",
    ] {
      #expect(contains(text, part), "\(part) is missing in:\n\(text)")
    }
    #expect(text.split(separator: "\n").allSatisfy { $0.count <= 80 }, "\(text)")
    try server.replaceScript("no Lua")
    _ = try server.refused("reload")
    #expect(contains(try server.done("status"), "failed"))
  }

  @Test("status is answered while a reload runs")
  func statusDuringReload() throws {
    let server = try MoonportProcess(serving: script("1"), workers: 1)
    try server.replaceScript(script("2", "local stop = os.clock() + 1; while os.clock() < stop do end"))
    let isOver = Flag()
    let reload = TestThread {
      defer { isOver.raise() }
      try server.done("reload")
    }
    var answers = 0
    repeat {
      #expect([1, 2].contains(try server.status()["generation"].integer))
      answers += 1
    } while !isOver.isRaised
    try reload.join()
    #expect(answers > 1)
    #expect(try server.status()["generation"].integer == 2)
  }

  @Test("admin clients that never finish their request are few at a time, and cut off for those behind them")
  func patience() throws {
    let server = try MoonportProcess(serving: script("1", Self.rooms), workers: 2)
    let client = try server.connect()
    #expect(try client.ask("id") != "")
    let before = try server.descriptorCount()
    let idle = try (0..<20).map { number in
      let idle = try TestClient("unix:\(server.adminPath)")
      try idle.send(number % 2 == 0 ? "5:" : "")
      return idle
    }
    #expect(try client.ask("id") != "")
    #expect(try server.status()["connections"].integer == 1)
    for each in idle.prefix(16) { #expect(try each.waitForEnd() == .closed) }
    for each in idle.suffix(4) { each.close() }
    try eventually("all are gone") { try server.descriptorCount() == before }
  }

  @Test("connections lists each client with its id, addresses and rooms")
  func connections() throws {
    let server = try MoonportProcess(serving: script("1", Self.rooms), workers: 2)
    #expect(try server.done("connections") == "no connections\n")
    let clients = try server.connect(3)
    let ids = try clients.map { try $0.ask("join hall") }
    let text = try server.done("connections")
    for (client, id) in zip(clients, ids) {
      let row = text.split(separator: "\n").first { $0.split(separator: " ").first == id[...] }
      #expect(contains(String(row ?? ""), client.localAddress), "\(text)")
      #expect(contains(String(row ?? ""), "hall"), "\(text)")
    }
    #expect(text.hasSuffix("3 connections\n"))
  }

  @Test("kick closes the connection with that id, tells its script, and fails for an unknown id")
  func kick() throws {
    let server = try MoonportProcess(serving: script("1", Self.rooms), workers: 2)
    let clients = try server.connect(2)
    let ids = try clients.map { try $0.ask("id") }

    #expect(contains(try server.done("kick", ids[1]), ids[1]))

    #expect(try clients[1].waitForEnd() == .closed)
    try server.waitForOutput(containing: "closed \(ids[1]): kicked\n")
    #expect(contains(try server.refused("kick", ids[1]), "no connection has the id \(ids[1])"))
    #expect(contains(try server.refused("kick", "123456789"), "no connection has the id"))
    #expect(try clients[0].ask("id") == ids[0])
  }

  @Test("broadcast reaches every client, and with --room only that room's, each framed by its codec")
  func broadcast() throws {
    let server = try MoonportProcess(serving: script("1", Self.rooms))
    let clients = try server.connect(6)
    for (index, client) in clients.enumerated() { _ = try client.ask(index < 2 ? "join hall" : "id") }
    #expect(try server.done("broadcast", "to all") == "sent to 6 clients\n")
    for client in clients { #expect(try client.receiveLine() == "to all") }
    #expect(try server.done("broadcast", "--room", "hall", "to some") == "sent to 2 clients\n")
    #expect(try server.done("broadcast", "--room", "nowhere", "to none") == "sent to 0 clients\n")
    #expect(try server.done("broadcast", "--", "--dashed") == "sent to 6 clients\n")
    for (index, client) in clients.enumerated() {
      if index < 2 { #expect(try client.receiveLine() == "to some") }
      #expect(try client.receiveLine() == "--dashed")
    }
  }

  @Test("the admin socket is the user's alone, and gone when the server is")
  func socketFile() throws {
    let server = try MoonportProcess(serving: script("1"))
    var facts = stat()
    #expect(stat(server.adminPath, &facts) == 0)
    #expect(facts.st_mode & 0o777 == 0o600)
    try server.done("stop")
    #expect(access(server.adminPath, F_OK) != 0)
    #expect(try server.waitForExit() == .exited(0))
  }

  @Test("a client of the admin socket that talks nonsense, or nothing, harms nobody")
  func nonsense() throws {
    let server = try MoonportProcess(serving: script("1"))
    let silent = try TestClient("unix:\(server.adminPath)")
    let mad = try TestClient("unix:\(server.adminPath)")
    // The last digit decides, however they are cut.
    try mad.send("9999999")
    #expect(contains(try mad.receiveTextUntilEnd(), "length"))
    let unknown = try TestClient("unix:\(server.adminPath)")
    try unknown.send("9:6:dance!,,")
    #expect(contains(try unknown.receiveTextUntilEnd(), "unknown command"))
    #expect(try server.status()["generation"].integer == 1)
    silent.close()
    #expect(try server.connect().ask("x") == "1 x")
  }

  @Test("without --admin the only server of the user is found; several are listed, and none is a failure")
  func discovery() throws {
    let runtime = try TemporaryFolder()
    let environment: [String: String?] = ["XDG_RUNTIME_DIR": runtime.path, "HOME": runtime.path]
    func start() throws -> ChildProcess {
      let script = try runtime.write("main\(UInt32.random(in: 0 ... .max)).lua", script("1"))
      let server = try ChildProcess(Launch(MoonportProcess.executable(), ["run", script, "--workers", "1"])) {
        $0.environment = environment
      }
      try server.waitForErrors(containing: "listening on ")
      return server
    }
    func control(_ command: String...) throws -> ToolResult {
      try MoonportProcess.runTool(command, environment: environment)
    }
    let none = try control("status")
    try #require(none.status == .exited(1), "another server of this user runs: \(none)")
    #expect(contains(none.errors, "no moonport server is running"))
    let first = try start()
    #expect(contains(try control("status").output, "pid \(first.pid)"))
    #expect(try control("reload").status == .exited(0))
    let second = try start()
    let both = try control("status")
    #expect(both.status == .exited(1))
    #expect(contains(both.errors, "\(first.pid).sock") && contains(both.errors, "\(second.pid).sock"), "\(both)")
    try first.kill()
    #expect(
      contains(try control("status").output, "pid \(second.pid)"), "what a killed server leaves is not taken for one")
    #expect(try control("stop").status == .exited(0))
    #expect(try second.waitForExit() == .exited(0))
    #expect(try control("status").status == .exited(1))
  }

  @Test(
    "every control command fails with status 1 where no server is",
    arguments: [
      ["status"], ["status", "--json"], ["reload"], ["rollback"], ["connections"], ["kick", "1"], ["broadcast", "x"],
      ["drain"], ["stop"],
    ])
  func noServer(_ command: [String]) throws {
    let folder = try TemporaryFolder()
    let result = try MoonportProcess.runTool(command + ["--admin", folder.file("admin.sock")])
    #expect(result.status == .exited(1))
    #expect(result.output.isEmpty)
    #expect(contains(result.errors, "there is no admin socket at \(folder.file("admin.sock"))"))
  }
}
