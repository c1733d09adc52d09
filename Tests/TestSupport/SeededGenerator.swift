// Random numbers that a failing test can be run with again.
//
// Must never know: what is drawn from them.

import Glibc
import Testing

/// SplitMix64: small, fast, and the same sequence for the same seed on every machine. Not for secrets.
package struct SeededGenerator: RandomNumberGenerator {
  /// The seed this generator began with.
  package let seed: UInt64
  private var state: UInt64

  /// A generator for the seed given; without one, for the seed of the running `@Test(.seeded)`.
  package init(seed: UInt64 = SeededTrait.current) {
    self.seed = seed
    state = seed
  }

  package mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var mixed = state
    mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
    mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
    return mixed ^ (mixed >> 31)
  }

  /// `count` random bytes.
  package mutating func bytes(_ count: Int) -> [UInt8] {
    (0..<count).map { _ in UInt8.random(in: .min ... .max, using: &self) }
  }
}

/// Gives a test a seed of its own and writes it beside each failure of that test.
///
/// The seed is new for every run, or the one in the environment's `MOONPORT_SEED`.
package struct SeededTrait: TestTrait, TestScoping {
  /// The seed of the running test; outside of a seeded test one for the whole run.
  @TaskLocal package static var current: UInt64 = fresh()

  package init() {}

  package func provideScope(
    for test: Test, testCase: Test.Case?, performing function: @Sendable () async throws -> Void
  ) async throws {
    let seed = SeededTrait.fresh()
    let annotating = IssueHandlingTrait.compactMapIssues { issue in
      var issue = issue
      issue.comments.append("run again with MOONPORT_SEED=\(seed)")
      return issue
    }
    try await SeededTrait.$current.withValue(seed) {
      try await annotating.provideScope(for: test, testCase: testCase, performing: function)
    }
  }

  private static func fresh() -> UInt64 {
    if let text = getenv("MOONPORT_SEED"), let seed = UInt64(String(cString: text)) { return seed }
    return UInt64.random(in: .min ... .max)
  }
}

extension Trait where Self == SeededTrait {
  /// A seed for this test, named in its failures; see `SeededGenerator`.
  package static var seeded: Self { SeededTrait() }
}
