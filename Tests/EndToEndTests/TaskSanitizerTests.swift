// Tasks, timers and sleepers on several workers under load and reloads, for the thread sanitizer too.
//
// Must never know: anything but the program's command line, its streams and its sockets.

import TestSupport
import Testing

@Suite(.serialized) struct TaskSanitizerTests {
  private static func busy(_ version: String) -> String {
    script(
      version,
      """
      local spawn, sleep = moonport.spawn, moonport.sleep
      local ticks = 0
      function handlers.on_start()
        moonport.every(0.002, function() ticks = ticks + 1 sleep(0.001) end)
        for i = 1, 20 do spawn(function() while true do sleep(0.003) moonport.broadcast("tick") end end) end
      end
      function handlers.on_message(conn, text)
        local tasks = {}
        for i = 1, 20 do
          tasks[i] = spawn(function(n) sleep(n / 1000) if n % 7 == 0 then error("on purpose") end return n end, i % 5)
        end
        tasks[1]:cancel()
        local waiter = spawn(function() return tasks[2]:wait() end)
        moonport.after(0.001, function() tasks[3]:cancel() end)
        moonport.after(100, function() end):cancel()
        local sum = 0
        for i = 1, 20 do sum = sum + (tasks[i]:wait() or 0) end
        conn:send("answer ", sum > 0 and waiter:wait() == 2 and text or "wrong")
      end
      """)
  }

  @Test("tasks and timers of four workers go on over reloads, and end with the server")
  func everything() throws {
    let server = try MoonportProcess(serving: Self.busy("0"))
    let isOver = Flag()
    let clients = TestThread {
      try inParallel(8, timeout: Patience.scaled(120)) { number in
        while !isOver.isRaised {
          let client = try server.connect()
          for turn in 0..<4 {
            try client.send("\(turn)\n")
            // Old code that is ended by the reload after the next closes its connection.
            while let line = try client.receiveLineOrEnd(), line != "answer \(turn)" { #expect(line == "tick") }
          }
          if number % 2 == 0 { client.reset() }
        }
      }
    }
    for version in 1...8 { try server.reload(Self.busy("\(version)")) }
    isOver.raise()
    try clients.join(timeout: Patience.scaled(120))
    let status = try server.status()
    #expect(status["generation"].integer == 9)
    try server.stop()
  }
}
