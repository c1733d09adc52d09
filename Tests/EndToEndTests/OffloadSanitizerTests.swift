// Offloaded calls under load, over reloads, with callers that are cancelled, and an end in the midst of it, for the thread sanitizer.
//
// Must never know: anything but the program's command line, its streams and its sockets.

import Glibc
import TestSupport
import Testing

@Suite(.serialized) struct OffloadSanitizerTests {
  private static func busy(_ version: String) -> String {
    script(
      version,
      """
      function handlers.on_message(conn, text)
        if text == "cancel" then
          local task = moonport.spawn(function() moonport.offload("work", { n = 1 << 40 }) end)
          moonport.sleep(0.001)
          task:cancel()
          return conn:send("ok")
        end
        local sum, list = moonport.offload("work", { n = 100, text })
        if sum then assert(sum == 5050 and list[1] == text) else assert(list == "busy", list) end
        moonport.shared("results"):incr("n", 1, 0)
        conn:send("ok")
      end
      """)
  }

  private func start() throws -> MoonportProcess {
    let folder = try TemporaryFolder()
    try folder.write(
      "work.lua",
      """
      local moonport = require "moonport"
      return function(t)
        local sum = 0
        for n = 1, t.n do sum = sum + n end
        moonport.shared("results"):incr("work", 1, 0)
        return sum, { t[1] }
      end
      """)
    return try MoonportProcess(script: Self.busy("0"), folder: folder) {
      $0.workers = 3
      $0.arguments = ["--offload-threads", "3"]
      if Patience.sanitizer == "thread" {
        let given = getenv("TSAN_OPTIONS").map { String(cString: $0) + ":" } ?? ""
        $0.environment = ["TSAN_OPTIONS": given + "halt_on_error=1:exitcode=66"]
      }
    }
  }

  @Test func `calls of many clients over reloads, some of them cancelled, all come to an end`() throws {
    let server = try start()
    let isOver = Flag()
    let clients = TestThread {
      try inParallel(8, timeout: Patience.scaled(120)) { index in
        while !isOver.isRaised {
          let client = try server.connect()
          for number in 0..<20 {
            // A reload may have ended the handler, and with it the connection.
            try client.send(number % 5 == index % 5 ? "cancel\n" : "\(number)\n")
            guard let answer = try client.receiveLineOrEnd() else { break }
            if answer != "ok" { throw TestFailure(answer) }
          }
          client.close()
        }
      }
    }
    for version in 1...8 {
      try server.reload(Self.busy("\(version)"))
      _ = try server.status()
    }
    isOver.raise()
    try clients.join(timeout: Patience.scaled(120))
    try eventually("all have ended") {
      let offload = try server.status()["offload"]
      return offload["running"].integer == 0 && offload["waiting"].integer == 0
    }
    try expectCleanEnd(server)
  }

  @Test func `the server ends while calls run and wait`() throws {
    let server = try start()
    let clients = TestThread {
      try inParallel(8, timeout: Patience.scaled(120)) { _ in
        let client = try server.connect()
        for number in 0..<100_000 {
          do {
            try client.send(number % 3 == 0 ? "cancel\n" : "\(number)\n")
            guard try client.receiveLineOrEnd() != nil else { return }
          } catch { return }
        }
      }
    }
    try eventually("all are at work") { try server.status()["offload"]["finished"].integer ?? 0 > 100 }
    try server.done("stop")
    try clients.join(timeout: Patience.scaled(120))
    try expectCleanEnd(server)
  }

  /// Ends the server, unless it has ended, and fails on anything that a sanitizer had to say.
  private func expectCleanEnd(_ server: MoonportProcess) throws {
    server.sendSignal(SIGTERM)
    #expect(try server.waitForExit() == .exited(0))
    for mark in [
      "WARNING: ThreadSanitizer", "ERROR: AddressSanitizer", "runtime error:", "Fatal error", "assertion failed",
    ] {
      #expect(!contains(server.errors, mark), "\(server.errors)")
    }
  }
}
