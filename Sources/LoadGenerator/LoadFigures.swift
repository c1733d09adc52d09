// What a load run found. Plain values; must never know how they are shown.

import Histogram

/// The figures of a run, so far or at its end.
package struct LoadFigures: Sendable {
  /// Latencies above this are counted as this: a minute, longer than anybody waits.
  package static let latencyMaxNanoseconds: UInt64 = 60_000_000_000

  /// Nanoseconds from sending a message, or from when it was due, to its echo; three significant digits.
  package var latencies = Histogram<UInt64>(
    highestTrackableValue: latencyMaxNanoseconds, numberOfSignificantValueDigits: .three)
  /// How long messages were sent.
  package var seconds: Double = 0
  /// Connections that were opened.
  package var connections = 0
  package var messagesSent = 0
  /// Messages that came back.
  package var messagesBack = 0
  /// Those of them that came while messages were still being sent.
  package var messagesInTime = 0
  package var bytesSent = 0
  package var bytesReceived = 0
  /// Messages that came back other than they were sent.
  package var mismatches = 0
  /// Connections that broke or that the server closed before the end.
  package var connectionsLost = 0
  /// Messages that never came back.
  package var unanswered = 0
  /// Messages of an open loop that were due and could not be sent before the end: their connections waited for answers.
  package var overdue = 0
  /// The generator's own processor time while messages were sent.
  package var processorSeconds: Double = 0
  /// What went wrong first, as a sentence.
  package var firstProblem: String?
  /// The run was ended from outside.
  package var wasInterrupted = false

  package init() {}

  /// Nothing went wrong and something was measured.
  package var isGood: Bool {
    mismatches == 0 && connectionsLost == 0 && unanswered == 0 && messagesBack + messagesInTime > 0
  }

  /// Echoes in a second; without echoes messages sent.
  package var messagesPerSecond: Double { seconds > 0 ? Double(messagesInTime) / seconds : 0 }

  /// How much of one core the generator used.
  package var processorShare: Double { seconds > 0 ? processorSeconds / seconds : 0 }

  mutating func record(nanoseconds: UInt64, count: Int) {
    latencies.record(min(nanoseconds, Self.latencyMaxNanoseconds), count: UInt64(count))
  }

  mutating func note(_ problem: @autoclosure () -> String) {
    if firstProblem == nil { firstProblem = problem() }
  }
}
