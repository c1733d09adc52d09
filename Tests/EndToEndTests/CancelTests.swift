// Cancelling tasks on the built program: wherever a task stands, it ends, closes what it has open, and its waiters are told once.
//
// Must never know: anything but the program's command line, its streams and its sockets.

import Foundation
import TestSupport
import Testing

@Suite struct CancelTests {
  /// What a script prints whose on_start has this body.
  private func printed(_ body: String) throws -> [String] {
    let server = try MoonportProcess.serving(
      """
      local spawn = moonport.spawn
      local function closing(f) return setmetatable({}, { __close = f }) end
      local function short(text) return (tostring(text):gsub(".*main.lua:%d+: ", "")) end
      function h.on_start()
        \(body)
        print("end")
      end
      """)
    try server.waitForOutput(containing: "end\n")
    #expect(server.errors.components(separatedBy: "\n").filter { $0.contains(" error ") } == [])
    return Array(server.output.components(separatedBy: "\n").prefix { $0 != "end" })
  }

  @Test func `a task that has not started never runs`() throws {
    let lines = try printed(
      """
      local task = spawn(print, "never")
      print(task:cancel(), task:cancel())
      print(task:wait())
      sleep(0.01)
      """)
    #expect(lines == ["true\tfalse", "nil\tcancelled"])
  }

  @Test func `a task that waits gets the error where it waits, and closes its variables`() throws {
    let lines = try printed(
      """
      local task = spawn(function()
        local outer <close> = closing(function(_, problem) print("outer", short(problem)) end)
        local ok, problem = pcall(sleep, 100)
        print(ok, short(problem))
        local inner <close> = closing(function(_, problem) print("inner", short(problem)) end)
        sleep(100)
        print("not reached")
      end)
      sleep(0)
      print(task:cancel(), task:cancel())
      print("still in the handler")
      print(task:wait())
      print(task:wait())
      print(task:cancel())
      """)
    #expect(
      lines == [
        "true\tfalse", "still in the handler", "false\tcancelled", "inner\tcancelled", "outer\tcancelled",
        "nil\tcancelled", "nil\tcancelled", "false",
      ])
  }

  @Test(arguments: [
    "sleep(100)", "while true do coroutine.yield() end", "moonport.spawn(sleep, 100):wait()", "other:wait(100)",
    "coroutine.wrap(function() sleep(100) end)()",
    "coroutine.wrap(function() coroutine.wrap(function() sleep(100) end)() end)()",
    "for _ in coroutine.wrap(function() sleep(100) coroutine.yield(1) end) do end",
    "pcall(sleep, 100) pcall(sleep, 100) error('of its own')",
    "while true do pcall(sleep, 100) end",
    "while true do pcall(coroutine.wrap(function() pcall(sleep, 100) end)) end",
    "local x <close> = closing(function() sleep(100) end) sleep(100)",
    "local x <close> = closing(function() while true do pcall(sleep, 100) end end) sleep(100)",
    "setmetatable({}, { __index = function() sleep(100) end }).x = nil sleep(100)",
    "local _ = setmetatable({}, { __index = function() sleep(100) end }).x",
    "xpcall(sleep, function() return 'handled' end, 100) return 'results'",
    "task:cancel() sleep(100)", "task:cancel() return 'results'", "task:cancel() while true do pcall(sleep, 1) end",
    "task:cancel() coroutine.yield()", "task:cancel() error('of its own')",
  ]) func `whatever a task does, cancelling ends it and its waiters are told once`(body: String) throws {
    let lines = try printed(
      """
      local other = spawn(function() sleep(100) end)
      local task
      task = spawn(function() \(body) end)
      local told = 0
      for _ = 1, 2 do spawn(function() told = told + 1 print(told, task:wait()) end) end
      sleep(0.002)
      task:cancel()
      print(task:wait())
      sleep(0.002)
      print(told, task:cancel())
      other:cancel()
      """)
    #expect(lines.filter { $0 != "nil\tcancelled" }.sorted() == ["1\tnil\tcancelled", "2\tfalse", "2\tnil\tcancelled"])
    #expect(lines.count == 4)
  }

  @Test func `what was about to wake a task does not, once it is cancelled`() throws {
    // All deadlines pass in one turn: the first task to wake cancels the others, which are due already.
    let lines = try printed(
      """
      local tasks = {}
      for i = 1, 10 do
        tasks[i] = spawn(function()
          sleep(0.01)
          for j, task in ipairs(tasks) do if j ~= i then task:cancel() end end
          return i
        end)
      end
      sleep(0)
      local begun = os.clock()
      while os.clock() < begun + 0.02 do end
      for i = 1, 10 do print(tasks[i]:wait()) end
      """)
    #expect(lines.filter { $0 == "nil\tcancelled" }.count == 9)
    #expect(lines.first == "1")
  }

  @Test func `a coroutine whose outer task was cancelled can be used by nobody to wait twice`() throws {
    let lines = try printed(
      """
      local inner = coroutine.create(function()
        print(short(select(2, pcall(sleep, 100))))
        coroutine.yield("yielded")
        return "returned"
      end)
      local task = spawn(function() print("outer", coroutine.resume(inner)) sleep(100) end)
      sleep(0)
      print(coroutine.resume(inner))
      task:cancel()
      print(task:wait())
      print(coroutine.resume(inner))
      print(coroutine.resume(inner))
      """)
    #expect(
      lines == [
        "false\tcannot resume a coroutine that waits", "cancelled", "outer\ttrue\tyielded", "nil\tcancelled",
        "true\treturned", "false\tcannot resume dead coroutine",
      ])
  }

  @Test func `cancelling a task that receives leaves the connection and its next message alone`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_message(conn, text)
        if text == "go" then
          local task = moonport.spawn(function() return conn:receive() end)
          sleep(0)
          print(task:cancel(), task:wait())
          return conn:send("gone")
        end
        conn:send("got " .. text)
      end
      """)
    let client = try server.connect()
    #expect(try client.ask("go") == "gone")
    #expect(try client.ask("next") == "got next")
    #expect(try client.ask("go") == "gone")
    try eventually("both tasks were cancelled") { server.outputCount(of: "true\tnil\tcancelled\n") == 2 }
  }

  @Test func `a connection's end wakes the task that receives from it, once`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_open(conn)
        moonport.spawn(function() print("task", conn:receive()) print("again", conn:receive()) end)
      end
      function h.on_close(conn, reason) print("closed", reason) end
      """)
    try server.connect().close()
    try server.waitForOutput(containing: "again\tnil\tclosed")
    try server.waitForOutput(containing: "closed\tpeer")
    #expect(server.outputCount(of: "task\tnil\tclosed") == 1)
    #expect(server.outputCount(of: "closed\tpeer") == 1)
  }

  // MARK: Reload

  @Test func `tasks finish on the old code, and end with "reloaded" at the reload after the next`() throws {
    let text = script(
      "A",
      """
      function handlers.on_message(conn, text)
        local version = handlers.version
        local quick = moonport.spawn(function() moonport.sleep(0.2) return version end)
        local slow = moonport.spawn(function()
          local x <close> = setmetatable({}, { __close = function() conn:send("closing " .. version) end })
          moonport.sleep(100)
        end)
        conn.ctx.slow = conn.ctx.slow or slow
        moonport.spawn(function() conn:send("quick " .. quick:wait()) conn:send("slow " .. tostring(select(2, conn.ctx.slow:wait()))) end)
        conn:send("spawned " .. version)
      end
      """)
    let server = try MoonportProcess(serving: text, workers: 1)
    let client = try server.connect()
    #expect(try client.ask("x") == "spawned A")
    try server.reload(text.replacingOccurrences(of: "\"A\"", with: "\"B\""))
    #expect(try client.receiveLine() == "quick A")
    #expect(try client.ask("x") == "spawned B")
    #expect(try client.receiveLine() == "quick B")
    try server.reload(text.replacingOccurrences(of: "\"A\"", with: "\"C\""))
    // The first waiter is of the old code itself and ends with it; the one of B is told.
    #expect(try client.receiveLines(2).sorted() == ["closing A", "slow reloaded"])
    #expect(try server.status()["handlers_on_older_generations"].integer == 1)
  }

  @Test func `old code that cancels its tasks at the end of its grace ends them once`() throws {
    let text = script(
      "A",
      """
      function handlers.on_start()
        local task = moonport.spawn(function() moonport.sleep(100) end)
        for i = 1, 5 do
          moonport.spawn(function() print(moonport.generation, i, pcall(moonport.sleep, 100)) task:cancel() end)
        end
        moonport.spawn(function() print("task", task:wait()) end)
      end
      """)
    let server = try MoonportProcess(serving: text, workers: 1)
    try server.done("reload")
    try server.done("reload")
    try server.waitForOutput(containing: "1\t5\tfalse")
    for index in 1...5 { #expect(server.outputCount(of: "1\t\(index)\tfalse") == 1) }
    try server.done("reload")
    try server.waitForOutput(containing: "2\t5\tfalse")
  }
}
