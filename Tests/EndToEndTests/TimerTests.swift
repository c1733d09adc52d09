// sleep, after and every, on the built program: what waits and what does not, cancelling, and that beats never overlap.
//
// Must never know: anything but the program's command line, its streams and its sockets.

import TestSupport
import Testing

@Suite struct TimerTests {
  @Test func `sleep suspends its own handler only, for at least as long as asked`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_message(conn, text)
        local seconds = tonumber(text)
        local begun = os.time()
        if seconds then sleep(seconds) end
        conn:send(text)
      end
      """)
    let sleeper = try server.connect()
    let other = try server.connect()
    try sleeper.send("0.3\n")
    for index in 0..<10 { #expect(try other.ask("x\(index)") == "x\(index)") }
    #expect(try sleeper.tryReceive(for: 0) == nil)
    #expect(try sleeper.receiveLine() == "0.3")
    for text in ["0", "0.0001", "-1"] { #expect(try sleeper.ask(text) == text) }
  }

  @Test func `a thousand sleepers at once all wake`() throws {
    let server = try MoonportProcess.serving(
      """
      local woken = 0
      function h.on_open(conn)
        for i = 1, 1000 do moonport.after(0, function() sleep((i * 7919 % 1000) / 5000) woken = woken + 1 end) end
        while woken < 1000 do sleep(0.005) end
        conn:send(woken)
      end
      """)
    #expect(try server.connect().receiveLine() == "1000")
  }

  @Test func `after runs once with its arguments, nil included, and may be cancelled`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_message(conn, text)
        local cancelled = moonport.after(0.01, function() conn:send("never") end)
        moonport.after(0.02, function(...) conn:send(select("#", ...), " ", tostring((...)), " ", select(3, ...)) end, nil, false, "c")
        conn:send(tostring(cancelled:cancel()) .. " " .. tostring(cancelled:cancel()))
        local done
        done = moonport.after(0.05, function() conn:send("last " .. tostring(done:cancel())) end)
      end
      """)
    let client = try server.connect()
    #expect(try client.ask("x") == "true false")
    #expect(try client.receiveLine() == "3 nil c")
    #expect(try client.receiveLine().hasPrefix("last "))
    #expect(try client.ask("again") == "true false")
  }

  @Test func `timers fire in the order of their times`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_message(conn)
        for _, ms in ipairs { 60, 20, 80, 0, 40 } do moonport.after(ms / 1000, function() conn:send(ms) end) end
      end
      """)
    let client = try server.connect()
    try client.send("x\n")
    #expect(try client.receiveLines(5) == ["0", "20", "40", "60", "80"])
  }

  @Test func `every repeats until it is cancelled, also from its own function`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_message(conn, text)
        local beats, timer = 0
        timer = moonport.every(0.005, function(word)
          beats = beats + 1
          conn:send(word .. " " .. beats)
          if beats == 5 then timer:cancel() moonport.after(0.05, function() conn:send("beats " .. beats) end) end
        end, text)
      end
      """)
    let client = try server.connect()
    try client.send("tick\n")
    #expect(try client.receiveLines(6) == (1...5).map { "tick \($0)" } + ["beats 5"])
  }

  @Test func `every never runs one beat twice at once, and an error in one beat does not end it`() throws {
    let server = try MoonportProcess.serving(
      """
      local running, most, beats = 0, 0, 0
      function h.on_start()
        moonport.every(0.002, function()
          running = running + 1
          most = math.max(most, running)
          beats = beats + 1
          sleep(0.01)
          running = running - 1
          error("on purpose")
        end)
      end
      function h.on_message(conn) conn:send(beats .. " " .. most) end
      """)
    let client = try server.connect()
    try eventually("many beats came") {
      let parts = try client.ask("x").split(separator: " ").compactMap { Int($0) }
      return parts[0] >= 10 && parts[1] == 1
    }
  }

  @Test func `a timer of a client that left is harmless`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_open(conn)
        moonport.after(0.05, function() print(tostring(conn:send("x")), conn:closed(), conn.peer ~= nil) end)
      end
      """)
    try server.connect().close()
    try server.waitForOutput(containing: "nil\ttrue\ttrue\n")
  }

  @Test func `thousands of timers and sleepers leave nothing behind`() throws {
    let server = try MoonportProcess.serving(
      """
      local left = 0
      function h.on_message(conn)
        left = 3000
        for i = 1, 1000 do
          moonport.after(0, function() left = left - 1 end)
          moonport.after(0, function() sleep(0.001) left = left - 1 end)
          moonport.after(1000, function() end):cancel()
          local timer timer = moonport.every(0.001, function() timer:cancel() left = left - 1 end)
        end
        while left > 0 do sleep(0.001) end
        collectgarbage()
        conn:send("done")
      end
      """)
    let client = try server.connect()
    for _ in 0..<3 { #expect(try client.ask("x") == "done") }
    let before = try server.residentBytes()
    for _ in 0..<8 { #expect(try client.ask("x") == "done") }
    #expect(try server.residentBytes() - before < 4_000_000)
  }

  @Test func `a million timers set and cancelled leave nothing behind`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_message(conn)
        for round = 1, 125 do
          local timers = {}
          for i = 1, 1000 do timers[i] = (i % 2 == 0 and moonport.after or moonport.every)(1000 + i % 7, print, i) end
          for i = 1, 1000 do timers[(i * 7919) % 1000 + 1]:cancel() end
          sleep(0)
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
    for _ in 0..<6 { last = try #require(Int(client.ask("x"))) }
    #expect(last < kilobytes + 100)
    #expect(try server.residentBytes() < resident + 4_000_000)
  }

  @Test
  func `an error in a timer is logged with its traceback, once a beat, and ends neither the timer nor its worker`()
    throws
  {
    let server = try MoonportProcess.serving(
      """
      function h.on_start()
        moonport.after(0, function() error("of after") end)
        local beats = 0
        moonport.every(0.001, function()
          beats = beats + 1
          if beats < 4 then error("of beat " .. beats) end
          if beats == 4 then print("fourth beat") end
        end)
      end
      """)
    try server.waitForOutput(containing: "fourth beat\n")
    try server.waitForErrors(containing: "of beat 3")
    for text in ["of after", "of beat 1", "of beat 2", "of beat 3"] {
      #expect(occurrences(of: ": \(text)\\nstack traceback:", in: server.errors) == 1, "\(text): \(server.errors)")
    }
  }

  @Test func `a timer that is cancelled while its function waits lets that finish, and has no further beat`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_message(conn)
        local beats, timer = 0, nil
        timer = moonport.every(0.001, function()
          beats = beats + 1
          conn:send("begin ", beats)
          sleep(0.02)
          conn:send("end ", beats)
        end)
        while beats == 0 do sleep(0.001) end
        conn:send(tostring(timer:cancel()), " ", tostring(timer:cancel()))
        sleep(0.05)
        conn:send("done")
      end
      """)
    let client = try server.connect()
    try client.send("x\n")
    #expect(try client.receiveLines(4) == ["begin 1", "true false", "end 1", "done"])
  }

  @Test func `a timer of no time comes after what is at work, and those that set the next one leave others their turn`()
    throws
  {
    let server = try MoonportProcess.serving(
      """
      local function again() moonport.after(0, again) end
      function h.on_start() again() end
      function h.on_message(conn, text)
        moonport.after(0, conn.send, conn, "timer ", text)
        conn:send("handler ", text)
      end
      """)
    let client = try server.connect()
    for index in 0..<50 {
      #expect(try client.ask("\(index)") == "handler \(index)")
      #expect(try client.receiveLine() == "timer \(index)")
    }
  }

  @Test func `beyond the bound of timers, setting one returns nil and a reason`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_message(conn)
        local timers, problem = {}, nil
        for i = 1, 1048577 do
          timers[i], problem = moonport.after(1000, print)
          if problem then conn:send(i, " ", problem) end
          if i % 10000 == 0 then sleep(0) end
        end
        for i = 1, #timers do
          timers[i]:cancel()
          if i % 10000 == 0 then sleep(0) end
        end
        conn:send(tostring(moonport.after(0, conn.send, conn, "fired") ~= nil))
      end
      """)
    let client = try server.connect()
    client.timeout = Patience.scaled(60)
    #expect(try client.ask("x") == "1048577 too many timers")
    #expect(try client.receiveLines(2) == ["true", "fired"])
  }

  @Test func `a script cannot wait while it loads`() throws {
    let folder = try TemporaryFolder()
    let path = try folder.write("main.lua", "local m = require 'moonport'\nm.sleep(1)\nreturn {}\n")
    let result = try MoonportProcess.runTool(["check", path])
    #expect(result.status == .exited(1))
    #expect(contains(result.errors + result.output, "main.lua:2: sleep cannot wait here"), "\(result)")
  }
}
