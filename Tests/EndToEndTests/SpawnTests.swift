// spawn, wait and cancel on the built program: when tasks run, what their waiters get, how they end, and that they leave nothing.
//
// Must never know: anything but the program's command line, its streams and its sockets.

import Foundation
import TestSupport
import Testing

@Suite struct SpawnTests {
  /// What a script prints whose on_start has this body, up to the line "end".
  private func printed(_ body: String, workers: Int = 1) throws -> [String] {
    let server = try server(body, workers: workers)
    return Array(server.output.components(separatedBy: "\n").prefix { $0 != "end" })
  }

  /// A server whose on_start has come to its end.
  private func server(_ body: String, workers: Int = 1) throws -> MoonportProcess {
    let server = try MoonportProcess.serving(
      """
      local spawn = moonport.spawn
      local function closing(f) return setmetatable({}, { __close = f }) end
      function h.on_start(worker)
        if worker > 1 then return end
        \(body)
        print("end")
      end
      """, workers: workers)
    try server.waitForOutput(containing: "end\n")
    return server
  }

  // MARK: Results

  @Test func `wait returns what the function returned, holes and nothing at all included`() throws {
    let lines = try printed(
      """
      print(spawn(function(...) return ... end, 1, nil, "x", nil):wait())
      print(select("#", spawn(function(...) return ... end, 1, nil, "x", nil):wait()))
      print(select("#", spawn(function(...) return select("#", ...) == 0 end):wait()))
      print(select("#", spawn(function() end):wait()))
      local t = {}
      print(spawn(function() return t end):wait() == t)
      print(spawn(function() sleep(0.01) return "slept" end):wait())
      print(spawn(function() coroutine.yield() return "yielded" end):wait())
      print(spawn(function() return coroutine.wrap(function() sleep(0) return "within" end)() end):wait())
      print(select("#", spawn(function() return table.unpack({}, 1, 100000) end):wait()))
      """)
    #expect(lines == ["1\tnil\tx\tnil", "4", "1", "0", "true", "slept", "yielded", "within", "100000"])
  }

  @Test func `wait returns an error as it was raised, with a traceback that shows the script's own lines`() throws {
    let lines = try printed(
      """
      local value, problem, traceback = spawn(function() error("boom") end):wait()
      print(value, (problem:gsub(".*/", "")))
      print((traceback:gsub("\\n.*", ""):gsub(".*/", "")), traceback:find("moonport:", 1, true))
      local own = {}
      print(select(2, spawn(function() error(own) end):wait()) == own)
      print((select(2, spawn(function() error() end):wait())))
      print(select(2, spawn(function() return nil + 1 end):wait()):match("attempt to.*"))
      local failed = spawn(error, "again", 0)
      print(select("#", failed:wait()), (failed:wait()), (select(2, failed:wait())))
      print(select(2, spawn(function() local function f() return f() + f() end return f() end):wait()):match("stack overflow"))
      """)
    #expect(lines[0...1] == ["nil\tmain.lua:9: boom", "main.lua:9: boom\tnil"])
    #expect(lines[2...4] == ["true", "nil", "attempt to perform arithmetic on a nil value"])
    #expect(lines.suffix(2) == ["3\tnil\tagain", "stack overflow"])
  }

  @Test func `an error that nobody waits for is logged once with its traceback, one that is waited for is not`() throws
  {
    let server = try server(
      """
      spawn(function() error("lonely") end)
      print(select(2, spawn(function() error("awaited") end):wait()) ~= nil)
      local late = spawn(function() error("late") end)
      sleep(0.01)
      print((late:wait()))
      local gone = spawn(function() sleep(0.05) error("gone") end)
      print(gone:wait(0.001))
      sleep(0.06)
      """)
    try server.waitForErrors(containing: "gone")
    #expect(server.output == "true\nnil\nnil\ttimeout\nend\n")
    for (word, count) in [("lonely", 1), ("awaited", 0), ("late", 1), ("gone", 1)] {
      #expect(occurrences(of: ": \(word)\\nstack traceback:", in: server.errors) == count, "\(word)")
    }
    #expect(try server.status()["errors"].integer == 3)
  }

  // MARK: When

  @Test func `tasks start once the handler waits or returns, in the order in which they were spawned`() throws {
    let lines = try printed(
      """
      for i = 1, 3 do
        spawn(function()
          print("start", i)
          spawn(print, "child of", i)
          sleep(0)
          print("go on", i)
        end)
      end
      print("before")
      sleep(0.05)
      """)
    #expect(lines.prefix(4) == ["before", "start\t1", "start\t2", "start\t3"])
    #expect(lines.filter { $0.hasPrefix("child") } == ["child of\t1", "child of\t2", "child of\t3"])
    #expect(lines.filter { $0.hasPrefix("go") } == ["go on\t1", "go on\t2", "go on\t3"])
  }

  @Test func `a task that spawns its successor for ever leaves others their turn`() throws {
    let server = try MoonportProcess.serving(
      """
      local function again() moonport.spawn(again) end
      function h.on_start() again() end
      function h.on_message(conn, text) conn:send(text) end
      """)
    let client = try server.connect()
    for index in 0..<50 { #expect(try client.ask("\(index)") == "\(index)") }
  }

  @Test func `a task that is spawned while the script loads starts when the generation is live, and never in a trial`()
    throws
  {
    let text = """
      local moonport = require "moonport"
      moonport.listen { address = "127.0.0.1:0" }
      local early = moonport.spawn(function()
        io.stdout:write("early ", moonport.generation, "\\n")
        io.stdout:flush()
        return "result"
      end)
      if arg[1] then error("not this one") end
      return { on_start = function() print(early:wait()) end }
      """
    let server = try MoonportProcess(serving: text, workers: 1)
    try server.waitForOutput(containing: "early 1\nresult\n")
    try server.replaceScript(text.replacingOccurrences(of: "if arg[1]", with: "if true"))
    #expect(contains(try server.refused("reload"), "not this one"))
    try server.reload(text)
    try server.waitForOutput(containing: "early 3\nresult\n")
    #expect(server.output == "early 1\nresult\nearly 3\nresult\n")
  }

  // MARK: Waiting

  @Test func `all who wait for a task are woken, and whoever waits later gets the same at once`() throws {
    let lines = try printed(
      """
      local task = spawn(function() sleep(0.02) return "done", 7 end)
      for i = 1, 40 do spawn(function() print(task:wait()) end) end
      sleep(0.05)
      print(pcall(table.sort, { 1, 2 }, function() print(task:wait()) return false end))
      """)
    #expect(lines.prefix(41) == Array(repeating: "done\t7", count: 41)[...])
  }

  @Test func `wait gives up after its timeout, and the task goes on`() throws {
    let lines = try printed(
      """
      local task = spawn(function() sleep(0.05) return "done" end)
      print(task:wait(0))
      print(task:wait(0.001))
      for i = 1, 100 do task:wait(0) end
      print(task:wait(10))
      print(task:wait(0))
      """)
    #expect(lines == ["nil\ttimeout", "nil\ttimeout", "done", "done"])
  }

  @Test func `a task that waits for itself raises, also from a coroutine of its own`() throws {
    let lines = try printed(
      """
      local task
      task = spawn(function() return pcall(function() task:wait() end) end)
      print((select(2, task:wait()):gsub(".*/", "")))
      task = spawn(function() return coroutine.wrap(function() task:wait() end)() end)
      print((select(2, task:wait()):match("a task cannot wait for itself")))
      """)
    #expect(lines == ["main.lua:10: a task cannot wait for itself", "a task cannot wait for itself"])
  }

  @Test func `handlers of connections wait for tasks, and other clients go on`() throws {
    let server = try MoonportProcess.serving(
      """
      local gate = {}
      function h.on_message(conn, text)
        if text == "open" then gate.open = true return conn:send("opened") end
        local task = moonport.spawn(function() while not gate.open do sleep(0.001) end return text:upper() end)
        conn:send(task:wait())
      end
      """)
    let waiting = try server.connect()
    try waiting.send("hello\n")
    #expect(try server.connect().ask("open") == "opened")
    #expect(try waiting.receiveLine() == "HELLO")
  }

  @Test func `wrong arguments name the function, the argument and the line`() throws {
    let lines = try printed(
      """
      local task = spawn(print, "task")
      local function problem(f) print((select(2, pcall(f)):gsub(".*/", ""))) end
      problem(function() spawn() end)
      problem(function() spawn("x") end)
      problem(function() task.wait() end)
      problem(function() task.wait({}) end)
      problem(function() task:wait(-1) end)
      problem(function() task:wait("soon") end)
      problem(function() task.cancel(7) end)
      """)
    #expect(
      lines == [
        "main.lua:11: bad argument #1 to 'spawn' (function expected, got nil)",
        "main.lua:12: bad argument #1 to 'spawn' (function expected, got string)",
        "main.lua:13: bad argument #1 to 'wait' (task expected, got no value)",
        "main.lua:14: bad argument #1 to 'wait' (task expected, got table)",
        "main.lua:15: bad argument #1 to 'wait' (a number of seconds, at least 0, expected, got -1)",
        "main.lua:16: bad argument #1 to 'wait' (a number of seconds, at least 0, expected, got \"soon\")",
        "main.lua:17: bad argument #1 to 'cancel' (task expected, got number)",
      ])
  }

  @Test func `waiting where nothing can wait raises and names the line`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_save() moonport.spawn(print, "x"):wait() end
      """)
    let problem = try server.refused("reload")
    #expect(contains(problem, "main.lua:5: task:wait cannot wait here"), "\(problem)")
  }

  // MARK: The bound

  @Test func `beyond the bound spawn returns nil and a reason, and goes on once tasks have ended`() throws {
    let lines = try printed(
      """
      local count, task, problem = 0, nil, nil
      local ran = 0
      local function run() ran = ran + 1 end
      repeat
        task, problem = spawn(run)
        if task then count = count + 1 end
      until not task
      print(count, problem)
      while ran < count do sleep(0.001) end
      print(spawn(function() return "again" end):wait())
      """)
    #expect(lines == ["262144\ttoo many tasks", "again"])
  }

  /// 99,000 tasks; with MOONPORT_LONG=1 nearly a million.
  @Test func `a great many tasks leave nothing behind`() throws {
    let rounds = isLongRun ? 100 : 10
    let server = try MoonportProcess.serving(
      """
      function h.on_message(conn)
        for round = 1, \(rounds) do
          local last
          for i = 1, 1000 do
            local task = moonport.spawn(function(...) return ... end, i, "x")
            if i % 4 == 0 then task:cancel() else last = task end
          end
          last:wait()
          local sleepers = {}
          for i = 1, 100 do sleepers[i] = moonport.spawn(function() sleep(i % 2 * 100) return i end) end
          sleep(0)
          for i = 1, 100, 2 do sleepers[i]:cancel() end
          for i = 1, 100 do sleepers[i]:wait() end
        end
        collectgarbage()
        collectgarbage()
        conn:send(collectgarbage("count") // 1 | 0)
      end
      """)
    let client = try server.connect()
    client.timeout = Patience.scaled(60)
    _ = try client.ask("x")
    let kilobytes = try #require(Int(client.ask("x")))
    let resident = try server.residentBytes()
    var last = 0
    for _ in 0..<7 { last = try #require(Int(client.ask("x"))) }
    #expect(last < kilobytes + 100)
    #expect(try server.residentBytes() < resident + 8_000_000)
  }
}
