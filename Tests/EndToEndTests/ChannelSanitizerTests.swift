// Channels under load, across workers and over reloads: nothing is lost, doubled or out of order, and the thread sanitizer is silent.
//
// Must never know: anything but the program's command line, its streams and its sockets.

import Glibc
import TestSupport
import Testing

@Suite(.serialized) struct ChannelSanitizerTests {
  private static let workers = 4

  /// Each request publishes its number; what each worker's subscribers get is kept in the clients' ctx, which outlives reloads.
  ///
  /// The first client of a worker holds the log of that worker: one line for each message, "generation publisher number".
  private static func counting(_ version: String) -> String {
    script(
      version,
      """
      local log, keeper = {}, nil
      moonport.subscribe("numbers", function(publisher, number)
        log[#log + 1] = publisher .. " " .. number
      end)
      function handlers.on_message(conn, text)
        if text == "log" then
          for _, line in ipairs(log) do conn:send(line) end
          return conn:send("end")
        end
        assert(moonport.publish("numbers", moonport.worker.id, tonumber(text)))
        if tonumber(text) % 50 == 0 then conn:send(text) end
      end
      function handlers.on_save() return log end
      function handlers.on_restore(saved) log = saved end
      """)
  }

  private func start(_ text: String) throws -> MoonportProcess {
    try MoonportProcess(script: text) {
      $0.workers = Self.workers
      if Patience.sanitizer == "thread" {
        let given = getenv("TSAN_OPTIONS").map { String(cString: $0) + ":" } ?? ""
        $0.environment = ["TSAN_OPTIONS": given + "halt_on_error=1:exitcode=66"]
      }
    }
  }

  @Test func `over reloads under load each message reaches each worker once and in order`() throws {
    let server = try start(Self.counting("0"))
    let count = isLongRun ? 50_000 : 2_000
    let clients = try server.connect(Self.workers)
    let reloads = isLongRun ? 50 : 6
    let publishing = TestThread {
      try inParallel(Self.workers, timeout: Patience.scaled(120)) { index in
        for number in 1...count {
          try clients[index].send("\(number)\n")
          if number % 50 == 0 { _ = try clients[index].receiveLine() }
        }
      }
    }
    for version in 1...reloads { try server.reload(Self.counting("\(version)")) }
    try publishing.join(timeout: Patience.scaled(120))
    for client in clients {
      var logs: [String: [Int]] = [:]
      try eventually("all have arrived") {
        logs = [:]
        try client.send("log\n")
        while true {
          let words = try client.receiveLine().split(separator: " ").map(String.init)
          if words == ["end"] { break }
          logs[words[0], default: []].append(Int(words[1]) ?? 0)
        }
        return logs.values.reduce(0) { $0 + $1.count } >= count * Self.workers
      }
      #expect(logs.count == Self.workers)
      for (publisher, numbers) in logs {
        #expect(numbers == Array(1...count), "from worker \(publisher): \(numbers.count) messages")
      }
    }
    for client in clients { client.close() }
    try expectCleanEnd(server)
  }

  @Test func `subscribing, cancelling, publishing and reloading at once`() throws {
    let text = { (version: String) in
      script(
        version,
        """
        local got = 0
        moonport.subscribe("a", function(n) got = got + 1 if n == 7 then moonport.sleep(0.001) error("seven") end end)
        function handlers.on_open(conn) conn.ctx.n = 0 end
        function handlers.on_message(conn, text)
          local subscription = moonport.subscribe("b" .. conn.id % 5, function(t) got = got + #t.list end)
          for n = 1, 10 do moonport.publish("a", n) moonport.publish("b" .. n % 5, { list = { 1, 2, text } }) end
          if subscription and tonumber(text) % 2 == 0 then subscription:cancel() end
          conn:send("ok")
        end
        """)
    }
    let server = try start(text("0"))
    let isOver = Flag()
    let clients = TestThread {
      try inParallel(6, timeout: Patience.scaled(120)) { _ in
        let client = try server.connect()
        var number = 0
        while !isOver.isRaised {
          number += 1
          let answer = try client.ask("\(number)")
          if answer != "ok" { throw TestFailure("\(answer)") }
        }
      }
    }
    for version in 1...6 {
      try server.reload(text("\(version)"))
      _ = try server.status()
    }
    isOver.raise()
    try clients.join(timeout: Patience.scaled(120))
    try expectCleanEnd(server)
  }

  /// Ends the server and fails on anything that a sanitizer had to say.
  private func expectCleanEnd(_ server: MoonportProcess) throws {
    server.sendSignal(SIGTERM)
    // 3 where clients of the test were still there.
    let status = try server.waitForExit()
    #expect(status == .exited(0) || status == .exited(3))
    for mark in ["WARNING: ThreadSanitizer", "ERROR: AddressSanitizer", "runtime error:", "Fatal error"] {
      #expect(!contains(server.errors, mark), "\(server.errors)")
    }
  }
}
