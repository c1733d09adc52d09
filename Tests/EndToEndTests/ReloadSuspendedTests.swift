// Old code after a reload: suspended handlers finish on it, late modules come from its snapshot, its timers are cancelled,
// and in the end whatever is left of it is ended with the error "reloaded".

import TestSupport
import Testing

@Suite struct ReloadSuspendedTests {
  /// Waits in `receive` or `sleep` as it is told and then says with which version's code it went on.
  private func waiting(_ version: String) -> String {
    script(
      version,
      """
      local function told(ok, what, reason)
        return ("%s %s %s %s"):format(handlers.version, tostring(ok), tostring(what), tostring(reason))
      end
      function handlers.on_message(conn, text)
        if text == "receive" then
          conn:send("waits")
          conn:send(told(true, conn:receive()))
        elseif text == "sleep" then
          conn:send("waits")
          moonport.sleep(0.3)
          conn:send(handlers.version .. " woke")
        elseif text == "protected" then
          conn:send("waits")
          conn:send(told(pcall(conn.receive, conn)))
          conn:send(told(pcall(moonport.sleep, 0)))
          conn:send(told(pcall(conn.receive, conn, "*l", 0)))
        elseif text == "for ever" then
          conn:send("waits")
          while true do pcall(conn.receive, conn) end
        else
          conn:send(handlers.version .. " " .. text)
        end
      end
      """)
  }

  private func older(_ server: MoonportProcess) throws -> Int? {
    try server.status()["handlers_on_older_generations"].integer
  }

  @Test("a suspended receive and a sleep finish on the old code, and the next message is the new code's")
  func finishOnOldCode() throws {
    let server = try MoonportProcess(serving: waiting("1"))
    let clients = try server.connect(8)
    for client in clients { #expect(try client.ask("receive") == "waits") }
    let sleeper = try server.connect()
    #expect(try sleeper.ask("sleep") == "waits")
    #expect(try older(server) == 0)

    try server.reload(waiting("2"))

    #expect(try older(server) ?? 0 >= 8)
    for client in clients { #expect(try client.ask("word") == "1 true word nil") }
    for client in clients { #expect(try client.ask("next") == "2 next") }
    #expect(try sleeper.receiveLine() == "1 woke")
    try eventually("nothing runs on old code any more") { try older(server) == 0 }
    #expect(try sleeper.ask("next") == "2 next")
  }

  @Test("status tells how many handlers run on older code, each worker's and all, right after each change")
  func statusOfOlderCode() throws {
    let server = try MoonportProcess(serving: waiting("1"), workers: 2)
    let clients = try server.connect(4)
    for client in clients { #expect(try client.ask("receive") == "waits") }
    #expect(try older(server) == 0)
    try server.reload(waiting("2"))
    let status = try server.status()
    #expect(status["handlers_on_older_generations"].integer == 4)
    #expect(status["workers"].elements.map { $0["handlers_on_older_generations"].integer } == [2, 2])
    #expect(contains(try server.done("status"), "4 handlers still run it"))
    #expect(try clients[0].ask("x") == "1 true x nil")
    #expect(try older(server) == 3)
    clients[1].close()
    try eventually("the handler of a client that left has ended") { try older(server) == 2 }
  }

  @Test("at the second reload a suspended handler is ended with \"reloaded\", at each further wait again")
  func endedAtSecondReload() throws {
    let server = try MoonportProcess(serving: waiting("1"))
    let client = try server.connect()
    #expect(try client.ask("protected") == "waits")
    try server.reload(waiting("2"))
    #expect(try older(server) == 1)
    try server.reload(waiting("3"))
    #expect(try client.receiveLine() == "1 false reloaded nil")
    #expect(try client.receiveLine() == "1 false reloaded nil")
    #expect(try client.receiveLine() == "1 false reloaded nil")
    #expect(try client.ask("next") == "3 next")
    #expect(try older(server) == 0)
  }

  @Test("a handler that waits for a task of its own ends with it, and does not go on as if the task had an answer")
  func waitingForUnstartedTask() throws {
    let script = """
      local moonport = require "moonport"
      moonport.listen { address = "127.0.0.1:0", codec = "line" }
      local function work() local until_ = os.clock() + 0.001 while os.clock() < until_ do end end
      return {
        on_message = function(conn, text)
          if text ~= "wait" then return conn:send(text) end
          local last
          for _ = 1, 30000 do last = moonport.spawn(work) end
          conn:send("waits")
          conn:send(tostring(last:wait()), " went on")
        end,
      }
      """
    let server = try MoonportProcess(script: script) { $0.workers = 1 }
    let client = try server.connect()
    #expect(try client.ask("wait") == "waits")
    try server.reload(script + " -- 2")
    try server.reload(script + " -- 3")
    #expect(try client.receiveLineOrEnd() == nil)
    try server.waitForErrors(containing: "reloaded")
    #expect(try server.connect().ask("new") == "new")
  }

  @Test("a handler that lets \"reloaded\" pass ends its connection with an error, as any error does")
  func uncaught() throws {
    let server = try MoonportProcess(serving: waiting("1"))
    let clients = try server.connect(2)
    #expect(try clients[0].ask("receive") == "waits")
    try server.reload(waiting("2"))
    try server.reload(waiting("3"))
    #expect(try clients[0].waitForEnd() == .closed)
    #expect(try clients[1].ask("x") == "3 x")
    try server.waitForErrors(containing: "reloaded")
  }

  @Test("after --reload-grace seconds old handlers are ended without another reload, a failed one in between or not")
  func grace() throws {
    let server = try MoonportProcess(serving: waiting("1"), ["--reload-grace", "0.5"])
    let client = try server.connect()
    #expect(try client.ask("protected") == "waits")
    try server.reload(waiting("2"))
    try server.replaceScript("no Lua")
    _ = try server.refused("reload")
    #expect(try client.receiveLine() == "1 false reloaded nil")
    _ = try client.receiveLine()
    _ = try client.receiveLine()
    #expect(try client.ask("next") == "2 next")
    #expect(try older(server) == 0)
  }

  @Test("a handler that catches \"reloaded\" for ever does not hold its worker")
  func swallowed() throws {
    let server = try MoonportProcess(serving: waiting("1"), workers: 1)
    let stubborn = try server.connect()
    let other = try server.connect()
    #expect(try stubborn.ask("for ever") == "waits")
    try server.reload(waiting("2"))
    try server.reload(waiting("3"))
    #expect(try other.ask("x") == "3 x")
    #expect(try stubborn.waitForEnd() == .closed)
    #expect(try older(server) == 0)
  }

  @Test("timers of the old generation are cancelled, those that its suspended handlers set later as well")
  func timers() throws {
    func ticking(_ version: String) -> String {
      script(
        version,
        """
        local function tick() moonport.broadcast("tick \(version)") end
        function handlers.on_start() moonport.every(0.005, tick) end
        function handlers.on_message(conn, text)
          if text == "late" then
            conn:receive()
            moonport.every(0.005, function() moonport.broadcast("late \(version)") end)
          end
          conn:send("mark \(version)")
        end
        """)
    }
    let server = try MoonportProcess(serving: ticking("1"), workers: 2)
    let clients = try server.connect(2)
    for client in clients { while try client.receiveLine() != "tick 1" {} }
    try clients[1].send("late\n")
    try eventually("the late one waits") { try server.status()["messages_in"].integer == 1 }
    try server.reload(ticking("2"))
    try clients[0].send("mark\n")
    while try clients[0].receiveLine() != "mark 2" {}
    for _ in 0..<20 { #expect(try clients[0].receiveLine() == "tick 2") }
    // The old handler goes on, and sets a timer of its own, which ends with the old code.
    try clients[1].send("go\n")
    while try clients[0].receiveLine() != "late 1" {}
    try server.reload(ticking("3"))
    try clients[0].send("mark\n")
    while try clients[0].receiveLine() != "mark 3" {}
    for _ in 0..<20 { #expect(try clients[0].receiveLine() == "tick 3") }
  }

  @Test("a module required late in a handler comes from the snapshot of its code, whatever the file holds by then")
  func lateRequire() throws {
    let body = """
      function handlers.on_message(conn, text)
        if text == "wait" then
          conn:send("waits")
          conn:receive()
        end
        conn:send(require("library").name)
      end
      """
    let folder = try TemporaryFolder()
    try folder.write("library.lua", "return { name = 'first' }\n")
    let server = try MoonportProcess(script: script("1", body), folder: folder) {
      $0.listen = MoonportProcess.anyPort
      $0.workers = 2
    }
    let clients = try server.connect(2)
    #expect(try clients[0].ask("wait") == "waits")
    #expect(try clients[1].ask("wait") == "waits")
    try folder.replace("library.lua", "return { name = 'second' }\n")
    try clients[0].send("go\n")
    #expect(try clients[0].receiveLine() == "first", "before a reload the file's new content is not seen")
    try server.done("reload")
    try clients[1].send("go\n")
    #expect(try clients[1].receiveLine() == "first")
    for client in clients { #expect(try client.ask("now") == "second") }
  }
}
