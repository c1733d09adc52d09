// What one worker's endless handlers cost the clients of another: nothing that a client could tell from a busy machine.
//
// Must never know: how a run is ended.

import Glibc
import TestSupport
import Testing

@Suite(.serialized) struct TortureBudgetTests {
  private static let script = """
    function h.on_message(conn, text)
      if text == "loop" then while true do end end
      if text == "stuck" then print(("a"):rep(23):match(("a?"):rep(23) .. ("a"):rep(23))) end
      conn:send(moonport.worker.id)
    end
    """

  private static let rounds = isLongRun ? 15 : 5
  private static let messagesPerRound = isLongRun ? 1_000 : 300
  private static let intervalSeconds = 0.0025
  /// How much longer others may wait because of a worker that burns its budget, as a factor.
  private static let factorMax = 2.0

  @Test(.enabled(if: Patience.sanitizer == nil, "a sanitizer's locks are what would be measured"))
  func `clients of other workers wait at most twice as long while one worker burns its budget`() throws {
    let server = try MoonportProcess.serving(TortureBudgetTests.script, workers: 2) {
      $0.arguments = ["--handler-budget", "0.2", "--log-level", "critical"]
    }
    let probe = try server.connect()
    let worker = try probe.ask("who")
    var figures: [Disturbance: [Double]] = [:]
    for round in 0..<TortureBudgetTests.rounds {
      // Each comes first as often as the others, since a machine is not as fast at the end of a minute as at its beginning.
      for step in 0..<Disturbance.allCases.count {
        let disturbance = Disturbance.allCases[(round + step) % Disturbance.allCases.count]
        let burning = try Burning(disturbance, server, sparing: worker)
        figures[disturbance, default: []].append(try p99(of: probe))
        try burning.stop()
      }
    }
    let median = figures.mapValues { $0.sorted()[$0.count / 2] }
    let quiet = try #require(median[.quiet])
    let busy = max(quiet, try #require(median[.elsewhere]))
    for disturbance in [Disturbance.loop, .stuck] {
      let delay = try #require(median[disturbance])
      print(
        "torture: p99 of others, \(disturbance.rawValue): \(microseconds(delay)) us; quiet \(microseconds(quiet)) us, ratio"
          + " \(ratio(delay, quiet)); another process burning \(microseconds(busy)) us, ratio \(ratio(delay, busy))")
      #expect(delay <= busy * TortureBudgetTests.factorMax, "\(disturbance): \(figures)")
    }
    let ended = try server.status()["workers"].elements.reduce(0) { $0 + ($1["budget_errors"].integer ?? 0) }
    #expect(ended >= 2 * TortureBudgetTests.rounds)
    try server.stop()
  }

  /// The 99th percentile of the delays of echoed lines, in seconds, each counted from when it was due: a delay that keeps later
  /// lines from being sent is theirs, too.
  private func p99(of client: TestClient) throws -> Double {
    var delays: [Double] = []
    let begin = Deadline.uptime
    for number in 0..<TortureBudgetTests.messagesPerRound {
      let due = begin + Double(number) * TortureBudgetTests.intervalSeconds
      let wait = due - Deadline.uptime
      if wait > 0 { usleep(UInt32(wait * 1e6)) }
      _ = try client.ask("who")
      delays.append(Deadline.uptime - due)
    }
    return delays.sorted()[delays.count * 99 / 100]
  }

  private func microseconds(_ seconds: Double) -> Int { Int(seconds * 1e6) }

  private func ratio(_ delay: Double, _ other: Double) -> Double { (delay / other * 100).rounded() / 100 }
}

/// What goes on while the clients of a worker are watched.
private enum Disturbance: String, CaseIterable {
  case quiet
  /// Another process has a core for itself: what the machine alone does to a client then.
  case elsewhere
  /// Handlers that loop, one after the other, until the budget ends each.
  case loop
  /// Handlers that are in a C function for longer than their budget.
  case stuck
}

/// A disturbance from its making to `stop`.
private final class Burning {
  private let isOver = Flag()
  private let thread: TestThread

  /// Returns once it burns.
  init(_ disturbance: Disturbance, _ server: MoonportProcess, sparing worker: String) throws {
    let hasBegun = Flag()
    thread = TestThread { [isOver] in
      defer { hasBegun.raise() }
      repeat {
        switch disturbance {
        case .quiet: return
        case .elsewhere:
          let child = try ChildProcess(Launch("sh", ["-c", "while :; do :; done"]))
          hasBegun.raise()
          while !isOver.isRaised { usleep(1_000) }
          try child.kill()
        case .loop, .stuck:
          let client = try server.connect()
          if try client.ask("who") == worker { continue }
          try client.send("\(disturbance.rawValue)\n")
          hasBegun.raise()
          _ = try client.waitForEnd()
        }
      } while !isOver.isRaised
    }
    try eventually("\(disturbance) has begun") { hasBegun.isRaised }
  }

  /// Ends it and waits for that.
  func stop() throws {
    isOver.raise()
    try thread.join()
  }
}
