// `moonport rollback`: the snapshot before the live one, made live by the same transaction.

import TestSupport
import Testing

@Suite struct RollbackTests {
  @Test("rollback makes the previous snapshot live again, as a new generation, whatever the files hold")
  func rollback() throws {
    let server = try MoonportProcess(serving: script("1"))
    let clients = try server.connect(8)
    let hash = try server.status()["hash"].text
    try server.reload(script("2"))
    for client in clients { #expect(try client.ask("x") == "2 x") }
    try server.replaceScript("no Lua at all")

    try server.done("rollback")

    for client in clients { #expect(try client.ask("x") == "1 x") }
    let status = try server.status()
    #expect(status["generation"].integer == 3)
    #expect(status["hash"].text == hash)
    try server.done("rollback")
    for client in clients { #expect(try client.ask("x") == "2 x") }
  }

  @Test("rollback hands state over like a reload")
  func state() throws {
    let body = """
      local seen = "nothing"
      function handlers.on_save() return "saved by " .. handlers.version end
      function handlers.on_restore(saved, old_version) seen = saved .. ", version " .. old_version end
      function handlers.on_message(conn) conn:send(handlers.version .. " has " .. seen) end
      """
    let server = try MoonportProcess(serving: script("1", body))
    let client = try server.connect()
    try server.reload(script("2", body))
    #expect(try client.ask("x") == "2 has saved by 1, version 1")
    try server.done("rollback")
    #expect(try client.ask("x") == "1 has saved by 2, version 2")
  }

  @Test("rollback is refused where there is nothing to go back to, a failed reload before it or not")
  func nothingToGoBackTo() throws {
    let server = try MoonportProcess(serving: script("1"))
    let client = try server.connect()
    #expect(contains(try server.refused("rollback"), "there is no earlier generation to go back to"))
    try server.replaceScript("no Lua")
    _ = try server.refused("reload")
    #expect(contains(try server.refused("rollback"), "there is no earlier generation to go back to"))
    #expect(try client.ask("x") == "1 x")
  }

  @Test("a rollback whose on_restore fails keeps the newer code")
  func failing() throws {
    let body = "function handlers.on_restore(_, old) if old == '2' then error('not back from 2') end end"
    let server = try MoonportProcess(serving: script("1", body))
    let client = try server.connect()
    try server.reload(script("2"))
    #expect(contains(try server.refused("rollback"), "main.lua:4: not back from 2"))
    #expect(try client.ask("x") == "2 x")
  }

  @Test("a rollback asked for while a reload runs is carried out after it, and each is told its own result")
  func afterRunningReload() throws {
    let slow = "local stop = os.clock() + 0.3; while os.clock() < stop do end"
    let server = try MoonportProcess(serving: script("1"), workers: 1)
    let client = try server.connect()
    try server.replaceScript(script("2", slow + "; error('in the end')"))
    let reload = TestThread {
      let errors = try server.refused("reload")
      #expect(contains(errors, "in the end"))
    }
    let rollback = TestThread {
      let errors = try server.refused("rollback")
      #expect(contains(errors, "no earlier generation"))
    }
    try reload.join()
    try rollback.join()
    #expect(try client.ask("x") == "1 x")
    try server.reload(script("2", slow))
    let both = (0..<2).map { index in TestThread { try server.done(index == 0 ? "reload" : "rollback") } }
    for thread in both { try thread.join() }
    #expect(try server.status()["last_reload"]["ok"].boolean == true)
  }
}
