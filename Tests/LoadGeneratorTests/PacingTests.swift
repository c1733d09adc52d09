// When messages of an open loop are due.

import Testing

@testable import LoadGenerator

@Suite struct PacingTests {
  private let pacing = Pacing(start: 1_000, messagesPerSecond: 1_000_000, connections: 3)

  @Test func `the first message is due at the start, and each other one an interval later`() {
    #expect(pacing.dueCount(at: 999) == 0)
    #expect(pacing.dueCount(at: 1_000) == 1)
    #expect(pacing.dueCount(at: 1_999) == 1)
    #expect(pacing.dueCount(at: 2_000) == 2)
    #expect(pacing.dueTime(of: 0) == 1_000)
    #expect(pacing.dueTime(of: 5) == 6_000)
  }

  @Test func `a message is not due before its time, at any rate`() {
    for rate in [0.5, 3, 7, 999, 33_333, 1e7] {
      let pacing = Pacing(start: 123_456_789, messagesPerSecond: rate, connections: 1)
      for number in 1..<1000 {
        // Times are whole nanoseconds, so a message may be due in the one before its own.
        let due = pacing.dueTime(of: number)
        #expect(pacing.dueCount(at: due + 1) >= number + 1)
        #expect(pacing.dueCount(at: due - 1) <= number)
      }
    }
  }

  @Test func `connections take turns, and their shares add up`() {
    for count in 0..<50 {
      let shares = (0..<3).map { pacing.share(of: $0, in: count) }
      #expect(shares.reduce(0, +) == count)
      #expect(shares.max()! - shares.min()! <= 1)
      #expect(shares.sorted(by: >) == shares)
    }
  }

  @Test func `a connection's messages are due when they are in the order of all`() {
    #expect(pacing.dueTime(of: 0, on: 2) == pacing.dueTime(of: 2))
    #expect(pacing.dueTime(of: 4, on: 1) == pacing.dueTime(of: 13))
  }
}
