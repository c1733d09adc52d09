// A kernel that fails in the ways it may: system calls that are interrupted or refused, signals, and a clock that jumps.
//
// Must never know: anything but the program's command line, its streams and its sockets.

import Glibc
import TestSupport
import Testing

@Suite(.serialized) struct TortureFaultTests {
  private static let echo = "function h.on_message(conn, text) conn:send(text) end"

  /// Clients that come, talk and leave; each must get all its answers. Returns how many there were.
  private func exchange(_ server: MoonportProcess, clients: Int) throws -> String {
    try inParallel(2, timeout: Patience.scaled(60)) { thread in
      for index in 0..<clients / 2 {
        let client = try server.connect()
        let lines = (0..<10).map { "\(thread)-\(index)-\($0)" }
        try client.send(lines.map { $0 + "\n" }.joined())
        if try client.receiveLines(10) != lines { throw TestFailure("client \(index) got other answers") }
        if index % 2 == 0 { try client.halfClose() }
      }
    }
    return "\(clients) of \(clients) clients got all their answers"
  }

  // MARK: System calls

  @Test(.enabled(if: Preload.isPossible, "nothing can be preloaded before a sanitizer"))
  func `interrupted and refused system calls cost nobody an answer`() throws {
    let faults =
      "accept4:ECONNABORTED:3,accept4:EPROTO:4,accept4:EINTR:2,accept4:EAGAIN:7,recv:EINTR:2,recv:EAGAIN:3,"
      + "send:EINTR:2,send:EAGAIN:3,sendmsg:EINTR:2,sendmsg:EAGAIN:3,epoll_wait:EINTR:2"
    let environment = try Preload.faults(faults)
    let server = try MoonportProcess.serving(TortureFaultTests.echo, workers: 2) { $0.environment = environment }
    try Siege(name: "ECONNABORTED, EPROTO, EINTR, EAGAIN", server: server).withstand {
      try exchange(server, clients: isLongRun ? 2000 : 200)
    }
  }

  /// EINTR and EAGAIN have a test of their own: they cost nothing.
  @Test(
    .enabled(if: Preload.isPossible, "nothing can be preloaded before a sanitizer"),
    arguments: ["ECONNABORTED", "EPROTO", "ENOBUFS", "ENOMEM", "EMFILE"])
  func `an error that any call may return loses at most the connections whose calls failed`(error: String) throws {
    let calls = [("accept4", 90), ("recv", 20), ("send", 30), ("sendmsg", 30), ("epoll_wait", 5)]
    let environment = try Preload.faults(calls.map { "\($0.0):\(error):\($0.1)" }.joined(separator: ","))
    let server = try MoonportProcess.serving(TortureFaultTests.echo, workers: 2) { $0.environment = environment }
    try Siege(name: "\(error) on accept, recv, send, epoll_wait", server: server).withstand {
      var answered = 0
      let count = 60
      for index in 0..<count {
        let client = try server.connect()
        if (try? client.ask("\(index)")) == "\(index)" { answered += 1 }
      }
      #expect(answered >= count / 2)
      return "\(answered) of \(count) answered, the others ended"
    }
  }

  // MARK: Signals

  @Test func `1,000 signals of every harmless kind under load cost nobody an answer`() throws {
    let server = try MoonportProcess.serving(TortureFaultTests.echo, workers: 2)
    let harmless = [
      SIGURG, SIGWINCH, SIGCHLD, SIGCONT, SIGPIPE, SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGIO, SIGXFSZ,
    ]
    try Siege(name: "1,000 signals of every harmless kind", server: server).withstand {
      let isOver = Flag()
      let sender = TestThread {
        for round in 0..<1000 {
          for signal in harmless { server.sendSignal(signal) }
          if round % 100 == 0 { server.sendSignal(SIGHUP) }
          if round % 20 == 0 { usleep(1000) }
        }
        isOver.raise()
      }
      var outcome = ""
      repeat { outcome = try exchange(server, clients: 50) } while !isOver.isRaised
      try sender.join(timeout: Patience.scaled(60))
      return "\(harmless.count) kinds, 1,000 each, and 10 SIGHUP; \(outcome)"
    }
  }

  // MARK: The clock

  @Test(
    .enabled(
      if: Preload.isPossible && Preload.fakeClock("") != nil, "needs Debian's faketime, and no sanitizer before it"))
  func `the clock set an hour forward and back moves no timer, no sleep and no timeout`() throws {
    let folder = try TemporaryFolder()
    let clock = try folder.write("clock", "+0\n")
    let server = try MoonportProcess.serving(
      """
      local ticks = 0
      moonport.every(0.05, function() ticks = ticks + 1 end)
      function h.on_message(conn, text)
        if text == "sleep" then moonport.sleep(0.3) end
        conn:send(text == "ticks" and ticks or text == "time" and os.time() or text)
      end
      function h.on_close(conn, reason) print("closed " .. reason) end
      """, "codec = 'line', idle_timeout = 60, message_timeout = 60", folder: folder
    ) {
      $0.environment = Preload.fakeClock(clock) ?? [:]
      // The shell that sets the limit has the library first: where that sets a variable before a Swift program begins, the
      // program does not find its arguments.
      $0.descriptorsMax = 256
    }
    let client = try server.connect()
    let sleeper = try server.connect()
    func number(_ question: String) throws -> Int { Int(try client.ask(question)) ?? -1 }
    let begun = try number("time")
    var rounds = 0
    for hour in [3600, 0, -3600, 0] {
      try sleeper.send("sleep\n")
      let ticks = try number("ticks")
      try folder.write("clock", hour < 0 ? "\(hour)s\n" : "+\(hour)s\n")
      try eventually("the server sees the new time") { abs(try number("time") - begun - hour) < 600 }
      #expect(try sleeper.receiveLine() == "sleep")
      try eventually("the timer goes on") { try number("ticks") >= ticks + 3 }
      // Nobody slept an hour, and a timer that was behind by one would have caught up with 72,000 beats.
      #expect(try number("ticks") < ticks + 2000)
      rounds += 1
    }
    #expect(server.output == "", "nobody timed out")
    #expect(try server.status()["uptime"].number ?? -1 < 600)
    Siege(name: "clock forward and back an hour", server: server).report(
      "\(rounds) jumps; timers, sleeps and timeouts unmoved")
  }
}
