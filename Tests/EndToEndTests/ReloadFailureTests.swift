// Reloads that fail: the old generation goes on serving on every worker, the operator is told where to look, and the same
// server reloads as soon as the cause is gone.

import Glibc
import TestSupport
import Testing

/// A script that cannot become live, and what the operator must read about it.
struct BrokenScript: Sendable, CustomTestStringConvertible {
  let testDescription: String
  let text: String
  let expected: [String]

  init(_ description: String, _ text: String, _ expected: String...) {
    testDescription = description
    self.text = text
    self.expected = expected
  }

  static let all: [BrokenScript] = [
    BrokenScript("a syntax error", script("2", "local x = = 1"), "main.lua:4: unexpected symbol near '='"),
    BrokenScript("an error while loading", script("2", "error('no luck')"), "main.lua:4: no luck", "stack traceback"),
    BrokenScript(
      "an error that is a table", script("2", "error({ code = 3 })"), "main.lua:4: (error object is a table value)"),
    BrokenScript("an error without a value", script("2", "error()"), "main.lua:4: (error object is a nil value)"),
    BrokenScript(
      "an error that tells itself",
      script("2", "error(setmetatable({}, { __tostring = function() return 'no luck' end }))"), "main.lua:4: no luck"),
    BrokenScript("a missing module", script("2", "require 'nowhere'"), "main.lua:4:", "module 'nowhere' not found"),
    BrokenScript("a module with a syntax error", script("2", "require 'broken'"), "broken.lua:2:"),
    BrokenScript("a module that fails", script("2", "require 'failing'"), "failing.lua:2: not today"),
    BrokenScript(
      "no table returned", "local moonport = require 'moonport'\nreturn 7\n", "main.lua:2:", "table of handlers"),
    BrokenScript("nothing returned", "local moonport = require 'moonport'\n", "main.lua:1:", "table of handlers"),
    BrokenScript(
      "a failing on_restore", script("2", "function handlers.on_restore() error('no way back') end"),
      "main.lua:4: no way back"),
    BrokenScript(
      "an on_restore that fails on one worker",
      script("2", "function handlers.on_restore() if moonport.worker.id == 3 then error('not here') end end"),
      "main.lua:4: not here"),
    BrokenScript(
      "an on_restore that waits", script("2", "function handlers.on_restore() moonport.sleep(1) end"), "main.lua:4"),
    BrokenScript(
      "loading that fails on one worker", script("2", "if moonport.worker.id == 2 then error('not you') end"),
      "main.lua:4: not you"),
    BrokenScript(
      "an unknown handler's name", script("2", "function handlers.on_mesage() end"), "main.lua:4:",
      "unknown handler 'on_mesage'"),
    BrokenScript("a handler that is no function", script("2", "handlers.on_open = 7"), "main.lua:6:", "'on_open'"),
    BrokenScript(
      "an unknown option", script("2", "moonport.listen { adress = '127.0.0.1:0' }"), "main.lua:4:", "unknown option"),
    BrokenScript(
      "an address that is none", script("2", "moonport.listen { address = 'nowhere at all' }"), "main.lua:4:",
      "nowhere at all"),
    BrokenScript(
      "the same address twice",
      script("2", "for _ = 1, 2 do moonport.listen { address = 'unix:/tmp/moonport-test-twice.sock' } end"),
      "main.lua:4:", "twice"),
    BrokenScript(
      "other addresses on one worker",
      script("2", "if moonport.worker.id == 2 then moonport.listen { address = '[::1]:0' } end"), "main.lua:",
      "worker 2"),
  ]
}

@Suite struct ReloadFailureTests {
  @Test("a reload that cannot succeed leaves the old code serving on every worker", arguments: BrokenScript.all)
  func brokenScript(_ broken: BrokenScript) throws {
    let server = try MoonportProcess(serving: script("1"))
    let clients = try server.connect(8)
    for client in clients { #expect(try client.ask("before") == "1 before") }
    try server.folder.write("broken.lua", "local x\nx = = 2\n")
    try server.folder.write("failing.lua", "\nerror('not today')\n")
    try server.replaceScript(broken.text)

    let errors = try server.refused("reload")

    for part in broken.expected { #expect(contains(errors, part), "\(part) is missing in: \(errors)") }
    try expectOldCodeEverywhere(server, clients)
    try server.reload(script("3"))
    for client in clients { #expect(try client.ask("after") == "3 after") }
  }

  private func expectOldCodeEverywhere(_ server: MoonportProcess, _ clients: [TestClient]) throws {
    for client in clients { #expect(try client.ask("still") == "1 still") }
    let status = try server.status()
    #expect(status["generation"].integer == 1)
    #expect(status["last_reload"]["ok"].boolean == false)
    #expect(status["connections"].integer == clients.count)
    let newcomer = try server.connect()
    #expect(try newcomer.ask("new") == "1 new")
  }

  @Test("an endless loop while loading ends by its budget, and clients are served meanwhile")
  func endlessLoop() throws {
    // Seconds of CPU time, of which a busy machine may give few a minute.
    let server = try MoonportProcess(serving: script("1"), ["--load-budget", "1"])
    let clients = try server.connect(8)
    try server.replaceScript(script("2", "while true do pcall(function() while true do end end) end"))
    let reload = TestThread {
      let errors = try server.refused("reload")
      #expect(contains(errors, "main.lua:4:"), "\(errors)")
      #expect(contains(errors, "budget exceeded"), "\(errors)")
    }
    try eventually("a status shows that a reload runs or is over") { try server.status()["generation"].integer == 1 }
    for round in 0..<50 {
      for client in clients { #expect(try client.ask("\(round)") == "1 \(round)") }
    }
    try reload.join(timeout: Patience.scaled(60))
    try expectOldCodeEverywhere(server, clients)
    try server.reload(script("3"))
    for client in clients { #expect(try client.ask("after") == "3 after") }
  }

  @Test("a failing on_save keeps the old code until it succeeds")
  func failingSave() throws {
    let body = """
      local broken = false
      function handlers.on_message(conn, text) broken = text == "break"; conn:send("1 " .. text) end
      function handlers.on_save()
        if broken then error("cannot save now") end
      end
      """
    let server = try MoonportProcess(serving: script("1", body))
    let clients = try server.connect(8)
    for client in clients { #expect(try client.ask("hello") == "1 hello") }
    #expect(try clients[5].ask("break") == "1 break")
    try server.replaceScript(script("2"))

    let errors = try server.refused("reload")

    #expect(contains(errors, "main.lua:7: cannot save now"), "\(errors)")
    // The file has another line 7 now.
    #expect(contains(errors, "this is on_save of generation 1, the code that runs now"), "\(errors)")
    try expectOldCodeEverywhere(server, clients)
    for client in clients { #expect(try client.ask("mended") == "1 mended") }
    try server.done("reload")
    for client in clients { #expect(try client.ask("after") == "2 after") }
  }

  @Test("what on_save sets going belongs to the old code, also where the reload fails", arguments: [true, false])
  func madeInSave(succeeds: Bool) throws {
    let body = """
      function handlers.on_save()
        moonport.after(0, function() print("after") end)
        moonport.spawn(function() print("task") end)
        moonport.every(0.001, function() print("beat") end)
      end
      """
    let server = try MoonportProcess(serving: script("1", body), workers: 1)
    let failing = "function handlers.on_restore() error('no') end"
    try server.replaceScript(script("2", succeeds ? "" : failing))
    if succeeds { try server.done("reload") } else { _ = try server.refused("reload") }
    // A task goes on after a reload, as any handler does; timers end with their code.
    try server.waitForOutput(containing: "task\n")
    if succeeds {
      #expect(try server.connect().ask("x") == "2 x")
      try server.stop()
      #expect(server.output == "task\n")
    } else {
      try server.waitForOutput(containing: "after\n")
      try server.waitForOutput(containing: "beat\nbeat\n")
    }
  }

  @Test("what the new code says before it is live is said once it is, and not at all where the reload fails")
  func saidAhead() throws {
    func text(_ version: String, _ body: String) -> String {
      script(
        version,
        """
        local ids = moonport.shared("ids")
        function handlers.on_open(conn) ids:set(conn.peer, conn.id) ids:set("last", conn.id) end
        local function speak(when)
          if moonport.generation == 1 or moonport.worker.id ~= 1 then return end
          moonport.broadcast("\(version) " .. when)
          moonport.send(ids:get("last") or 0, "\(version) to you " .. when)
        end
        speak("loading")
        \(body)
        """)
    }
    let server = try MoonportProcess(serving: text("1", ""), workers: 2)
    // One after the other, so that the last one is the last.
    let clients = try (0..<3).map { _ in
      let client = try server.connect()
      #expect(try client.ask("a") == "1 a")
      return client
    }
    let failing = """
      function handlers.on_restore()
        speak("restoring")
        moonport.close(ids:get("last"))
        if moonport.worker.id == 2 then error("no") end
      end
      """
    try server.replaceScript(text("2", failing))
    #expect(contains(try server.refused("reload"), "main.lua:15: no"))
    for client in clients { #expect(try client.ask("b") == "1 b") }
    let body = """
      function handlers.on_restore() speak("restoring") end
      function handlers.on_start() if moonport.worker.id == 1 then moonport.broadcast("3 started") end end
      """
    try server.reload(text("3", body))
    for (index, client) in clients.enumerated() {
      let own = index == 2 ? ["3 to you loading", "3 restoring", "3 to you restoring"] : ["3 restoring"]
      #expect(try client.receiveLines(own.count + 2) == ["3 loading"] + own + ["3 started"])
      #expect(try client.ask("c") == "3 c")
    }
  }

  @Test("a script that takes the string library apart does not keep the next one from being loaded")
  func brokenLibrary() throws {
    let body = """
      for _, name in ipairs { "format", "sub", "find", "gsub", "match", "rep" } do string[name] = nil end
      for _, name in ipairs { "concat", "unpack", "sort" } do table[name] = nil end
      """
    let server = try MoonportProcess(serving: script("1", body), workers: 2)
    let client = try server.connect()
    #expect(try client.ask("x") == "1 x")
    try server.replaceScript(script("2", "local nothing = nil; nothing()"))
    #expect(contains(try server.refused("reload"), "main.lua:4: attempt to call a nil value (local 'nothing')"))
    try server.reload(script("3"))
    #expect(try client.ask("x") == "3 x")
  }

  @Test("an address in use is reported with the line of its moonport.listen, and what was bound for it is given back")
  func addressInUse() throws {
    let taken = try TestListener()
    let server = try MoonportProcess(serving: script("1"))
    let clients = try server.connect(4)
    let socket = "unix:\(server.folder.file("other.sock"))"
    try server.replaceScript(
      script("2", "moonport.listen { address = '\(socket)' }\nmoonport.listen { address = '\(taken.address)' }"))

    let errors = try server.refused("reload")

    #expect(contains(errors, "main.lua:5:"), "\(errors)")
    #expect(contains(errors, taken.address), "\(errors)")
    #expect(contains(errors, "ddress already in use"), "\(errors)")
    try expectOldCodeEverywhere(server, clients)
    #expect(throws: TestFailure.self) { try TestClient(socket) }
    #expect(try server.status()["listeners"].elements.count == 1)
    try server.reload(script("3", "moonport.listen { address = '\(socket)' }"))
    let other = try TestClient(socket)
    try other.send("x")
    #expect(try other.receive(exactly: 3) == Array("3 x".utf8))
  }

  @Test("a listener bound for a reload that then fails is closed again")
  func boundThenFailed() throws {
    let server = try MoonportProcess(serving: script("1"))
    let clients = try server.connect(4)
    let socket = "unix:\(server.folder.file("other.sock"))"
    let body = "moonport.listen { address = '\(socket)' }\nfunction handlers.on_restore() error('no') end"
    try server.replaceScript(script("2", body))

    let errors = try server.refused("reload")

    #expect(contains(errors, "main.lua:5: no"), "\(errors)")
    #expect(throws: TestFailure.self) { try TestClient(socket) }
    #expect(access(server.folder.file("other.sock"), F_OK) != 0)
    try expectOldCodeEverywhere(server, clients)
  }

  @Test("a script whose file is gone cannot be reloaded, and the server goes on")
  func deletedScript() throws {
    let server = try MoonportProcess(serving: script("1"))
    let clients = try server.connect(8)
    try server.folder.remove("main.lua")

    let errors = try server.refused("reload")

    #expect(contains(errors, "main.lua: no such file"), "\(errors)")
    try expectOldCodeEverywhere(server, clients)
    try server.reload(script("3"))
    for client in clients { #expect(try client.ask("after") == "3 after") }
  }

  @Test("a worker that is busy with a handler makes the reload fail instead of stopping the others for good")
  func busyWorker() throws {
    let body = """
      function handlers.on_message(conn, text)
        if text == "spin" then
          local stop = os.time() + 4
          while os.time() < stop do end
        end
        conn:send("1 " .. text)
      end
      """
    let server = try MoonportProcess(serving: script("1", body), workers: 2, ["--handler-budget", "30"])
    let clients = try server.connect(2)
    for client in clients { #expect(try client.ask("hello") == "1 hello") }
    try clients[0].send("spin\n")
    try server.replaceScript(script("2"))
    // Loading waits for the busy worker, which comes before the time for loading is up.
    try server.done("reload")
    #expect(try clients[0].receiveLine() == "1 spin")
    for client in clients { #expect(try client.ask("after") == "2 after") }
  }
}
