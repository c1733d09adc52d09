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

  fileprivate static let budgetSeconds = 0.2
  private static let rounds = isLongRun ? 15 : 5
  private static let roundsMax = 5 * rounds
  private static let messagesPerRound = isLongRun ? 1_000 : 300
  private static let intervalSeconds = 0.0025

  @Test(.enabled(if: Patience.sanitizer == nil, "a sanitizer's locks are what would be measured"))
  func `clients of other workers wait at most twice as long while one worker burns its budget`() throws {
    let server = try MoonportProcess.serving(TortureBudgetTests.script, workers: 2) {
      $0.arguments = ["--handler-budget", "\(TortureBudgetTests.budgetSeconds)", "--log-level", "critical"]
    }
    let probe = try server.connect()
    let worker = try probe.ask("who")
    let figures = Figures()
    // A machine that others use, too, has bad minutes, so that more rounds may show what the first ones hide: medians are of all
    // of them. Who waits for a worker waits as long as its budget, a hundred times the bound, in every round.
    repeat {
      for _ in 0..<TortureBudgetTests.rounds { try measure(figures, server, probe, sparing: worker) }
    } while !figures.isBounded && figures.rounds < TortureBudgetTests.roundsMax
    figures.report()
    #expect(figures.isBounded, "\(figures.delays)")
    let ended = try server.status()["workers"].elements.reduce(0) { $0 + ($1["budget_errors"].integer ?? 0) }
    #expect(ended >= 2 * figures.rounds)
    try server.stop()
  }

  /// One round: each disturbance comes first as often as the others, since a machine is not as fast at the end of a minute as at
  /// its beginning.
  private func measure(_ figures: Figures, _ server: MoonportProcess, _ probe: TestClient, sparing worker: String)
    throws
  {
    for step in 0..<Disturbance.allCases.count {
      let disturbance = Disturbance.allCases[(figures.rounds + step) % Disturbance.allCases.count]
      let burning = try Burning(disturbance, server, sparing: worker)
      figures.delays[disturbance, default: []].append(try p99(of: probe))
      try burning.stop()
    }
    figures.rounds += 1
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
}

/// What was measured: for each disturbance the 99th percentile of each round, in seconds.
private final class Figures {
  var delays: [Disturbance: [Double]] = [:]
  var rounds = 0

  /// How much longer others may wait because of a worker that burns its budget, as a factor.
  private static let factorMax = 2.0

  private func median(_ disturbance: Disturbance) -> Double {
    let sorted = delays[disturbance, default: []].sorted()
    return sorted.isEmpty ? 0 : sorted[sorted.count / 2]
  }

  /// What others wait for anyway when the other core has something to do.
  private var busy: Double { max(median(.quiet), median(.elsewhere)) }

  var isBounded: Bool {
    [.loop, .stuck].allSatisfy { median($0) <= busy * Figures.factorMax }
  }

  func report() {
    for disturbance in [Disturbance.loop, .stuck] {
      let (delay, quiet) = (median(disturbance), median(.quiet))
      print(
        "torture: p99 of others, \(disturbance.rawValue), \(rounds) rounds: \(microseconds(delay)) us; quiet"
          + " \(microseconds(quiet)) us, ratio \(ratio(delay, quiet)); another process burning \(microseconds(busy)) us, ratio"
          + " \(ratio(delay, busy))")
    }
  }

  private func microseconds(_ seconds: Double) -> Int { Int(seconds * 1e6) }

  private func ratio(_ delay: Double, _ other: Double) -> Double { (delay / other * 100).rounded() / 100 }
}

/// What goes on while the clients of a worker are watched.
private enum Disturbance: String, CaseIterable {
  case quiet
  /// A thread of another process takes a core for as long as a budget, rests for a moment, and again: what the machine alone does to
  /// a client then.
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
          hasBegun.raise()
          let end = Deadline.uptime + TortureBudgetTests.budgetSeconds
          while Deadline.uptime < end && !isOver.isRaised {}
          usleep(1_000)
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
