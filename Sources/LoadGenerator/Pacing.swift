// When the messages of an open loop are due. Arithmetic only; must never read a clock.

/// Message n of all is due at `start` plus n times the interval, on connection n modulo the number of connections.
///
/// A message's latency counts from when it was due and not from when it could be sent, so a server that stalls is charged for all the
/// messages that would have come meanwhile: what is left out otherwise is known as coordinated omission.
package struct Pacing: Equatable, Sendable {
  /// CLOCK_MONOTONIC in nanoseconds when the first message is due.
  package let start: UInt64
  /// Nanoseconds from one message to the next.
  package let interval: Double
  package let connections: Int

  package init(start: UInt64, messagesPerSecond: Double, connections: Int) {
    precondition(messagesPerSecond > 0 && connections > 0, "a pace needs a rate and connections")
    self.start = start
    interval = 1e9 / messagesPerSecond
    self.connections = connections
  }

  /// How many messages of all connections are due by `now`.
  package func dueCount(at now: UInt64) -> Int {
    guard now >= start else { return 0 }
    return Int(Double(now - start) / interval) + 1
  }

  /// When message `number` of all is due, from 0.
  package func dueTime(of number: Int) -> UInt64 { start + UInt64(Double(number) * interval) }

  /// How many of the first `count` messages are the connection's.
  package func share(of connection: Int, in count: Int) -> Int {
    count > connection ? (count - connection - 1) / connections + 1 : 0
  }

  /// When the connection's own message `number` is due, from 0.
  package func dueTime(of number: Int, on connection: Int) -> UInt64 {
    dueTime(of: number * connections + connection)
  }
}
