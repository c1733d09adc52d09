// The CPU budget of a running server: whatever of a script runs endlessly is ended, and nothing else notices.
//
// Must never know: how a run is ended.

import TestSupport
import Testing

@Suite(.serialized) struct SanitizerBudgetTests {
  /// A server whose handlers may take 0.1 s.
  private func serving(
    _ body: String, _ options: String = "codec = \"line\"", workers: Int = 1, _ extra: [String] = []
  ) throws -> MoonportProcess {
    try MoonportProcess.serving("local function loop() while true do end end\n\(body)", options, workers: workers) {
      $0.arguments = ["--handler-budget", "0.1", "--load-budget", "0.3"] + extra
    }
  }

  @Test func `a message handler that loops is ended with the error and its place, and only its client is closed`()
    throws
  {
    let server = try serving(
      """
      function h.on_message(conn, text) if text == "loop" then loop() end conn:send(text) end
      """)
    let client = try server.connect()
    let other = try server.connect()
    #expect(try other.ask("before") == "before")
    try client.send("loop\n")
    #expect(try client.waitForEnd() == .closed)
    #expect(try other.ask("after") == "after")
    try server.waitForErrors(
      containing: "main.lua:5: budget exceeded: ran for 0.1 s of CPU time without waiting; see --handler-budget")
    try eventually("the status counts it") {
      contains(try server.control("status", "--json").output, "\"budget_errors\":1")
    }
    try server.stop()
  }

  @Test(arguments: ["loop()", "while true do pcall(loop) end", "table.remove(made_at_load)()"])
  func `a handler is ended within 1.5 times its budget of CPU time`(_ disguise: String) throws {
    let budget = 0.4
    let server = try MoonportProcess.serving(
      """
      local function loop() while true do end end
      local made_at_load = {}
      for i = 1, 5 do made_at_load[i] = coroutine.wrap(function() while true do pcall(loop) end end) end
      function h.on_message(conn, text)
        if text ~= "loop" then return conn:send(text) end
        \(disguise)
      end
      """
    ) { $0.arguments = ["--handler-budget", "\(budget)"] }
    // The clock of the process counts what it did and not what a busy machine made it wait for. A late wake-up of the watchdog is
    // the machine's doing once, but not three times in five.
    var taken: [Double] = []
    for _ in 0..<5 {
      let client = try server.connect()
      #expect(try client.ask("ready") == "ready")
      let before = try server.processorSeconds()
      try client.send("loop\n")
      #expect(try client.waitForEnd() == .closed)
      taken.append(try server.processorSeconds() - before)
    }
    let median = taken.sorted()[2]
    // The kernel counts in hundredths of a second.
    #expect(median >= budget - 0.02 && median <= 1.5 * budget, "\(taken)")
    try server.stop()
  }

  @Test func `on_error is told of the budget, and may loop itself`() throws {
    let server = try serving(
      """
      function h.on_message(conn, text) if text == "loop" then loop() end conn:send(text) end
      function h.on_error(conn, message)
        print(message:match("budget exceeded"))
        conn:send("sorry")
        loop()
      end
      """)
    let client = try server.connect()
    #expect(try client.ask("loop") == "sorry")
    #expect(try client.waitForEnd() == .closed)
    try server.waitForOutput(containing: "budget exceeded")
    #expect(try server.connect().ask("x") == "x")
    try server.stop()
  }

  @Test func `every kind of handler, timer and task is held to the budget`() throws {
    let server = try serving(
      """
      local started = 0
      function h.on_start() moonport.after(0, function() print("start") loop() end) started = 1 end
      function h.on_open(conn) if conn.address == "never" then loop() end end
      function h.on_close(conn, reason) if conn.ctx.loops then print("close") loop() end end
      function h.on_console() end
      function h.on_stop() print("stop") loop() end
      local acts = {
        close = function(conn) conn.ctx.loops = true conn:close() end,
        timer = function() moonport.after(0, loop) end,
        every = function() local n = 0 moonport.every(0.01, function() n = n + 1 if n == 2 then loop() end if n == 4 then print("goes on") end end) end,
        task = function() moonport.spawn(loop) end,
        waited = function() moonport.sleep(0.01) loop() end,
        broadcast = function() while true do moonport.broadcast("x", { room = "nobody" }) end end,
      }
      function h.on_message(conn, text) acts[text](conn) conn:send(text) end
      """)
    func count() throws -> String { try server.control("status", "--json").output }
    try server.waitForOutput(containing: "start")
    try eventually("the timer of on_start is ended") { contains(try count(), "\"budget_errors\":1") }
    for (index, act) in ["close", "timer", "task", "waited", "broadcast", "every"].enumerated() {
      let client = try server.connect()
      try client.send(act + "\n")
      try eventually("\(act) is ended") { contains(try count(), "\"budget_errors\":\(index + 2)") }
    }
    try server.waitForOutput(containing: "goes on")
    try server.stop()
    #expect(contains(server.output, "stop"))
  }

  @Test func `codecs written in Lua are held to the budget`() throws {
    let server = try serving(
      """
      function h.on_message(conn, text) conn:send(text) end
      """,
      """
      codec = {
        decode = function(bytes, position)
          if bytes:find("decode", position, true) then loop() end
          local e = bytes:find("\\n", position, true)
          if e then return bytes:sub(position, e - 1), e + 1 end
        end,
        encode = function(message) if message == "encode" then loop() end return message .. "\\n" end,
      }
      """.replacing("loop()", with: "while true do pcall(error) end"))
    for text in ["decode", "encode"] {
      let client = try server.connect()
      try client.send(text + "\n")
      #expect(try client.waitForEnd() == .closed)
    }
    #expect(try server.connect().ask("x") == "x")
    try server.waitForErrors(containing: "budget exceeded")
    try server.stop()
  }

  @Test(arguments: [
    "while true do end", "require \"looping\"", "coroutine.wrap(function() while true do pcall(error) end end)()",
    "h.on_save = function() while true do end end", "h.on_restore = function() while true do end end",
    "setmetatable(h, { __pairs = function() while true do end end })",
  ])
  func `a reload that loops fails, and the running code serves on`(line: String) throws {
    let folder = try TemporaryFolder()
    func script(_ line: String, _ answer: String) -> String {
      """
      local moonport = require "moonport"
      moonport.listen { address = "127.0.0.1:0", codec = "line" }
      local h = {}
      function h.on_message(conn, text) conn:send("\(answer)") end
      \(line)
      return h
      """
    }
    // A generation saves its state when the next one is loaded.
    let savesEndlessly = line.contains("on_save")
    _ = try folder.write("looping.lua", "while true do pcall(error) end")
    let server = try MoonportProcess(script: script(savesEndlessly ? line : "", "old"), folder: folder) {
      $0.workers = 2
      $0.arguments = ["--load-budget", "0.2"]
    }
    let client = try server.connect()
    #expect(try client.ask("x") == "old")
    _ = try folder.write("main.lua", script(savesEndlessly ? "" : line, "new"))
    let reload = try server.control("reload")
    #expect(reload.status == .exited(1))
    #expect(contains(reload.output + reload.errors, "budget exceeded: ran for 0.2 s"), "\(reload)")
    #expect(try client.ask("x") == "old")
    try server.stop()
  }

  @Test func `other workers answer while one burns its budget`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_message(conn, text)
        if text == "loop" then conn:write("looping\\n") moonport.sleep(0) while true do end end
        conn:send(moonport.worker.id)
      end
      """, workers: 2
    ) { $0.arguments = ["--handler-budget", "0.5"] }
    let burning = try server.connect()
    let burningWorker = try burning.ask("who")
    var other = try server.connect()
    while try other.ask("who") == burningWorker { other = try server.connect() }
    #expect(try burning.ask("loop") == "looping")
    for _ in 0..<20 { #expect(try other.ask("who") != burningWorker) }
    #expect(try server.control("status").status == .exited(0))
    #expect(try burning.waitForEnd() == .closed)
    #expect(try other.ask("who") != burningWorker)
    try server.stop()
  }
}
