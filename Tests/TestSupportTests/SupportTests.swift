// Proves waiting, threads and seeds.

import Glibc
import TestSupport
import Testing

@Suite struct SupportTests {
  @Test func `a condition that never comes true is named`() {
    #expect {
      try eventually("pigs fly", timeout: 0.01) { false }
    } throws: {
      contains("\($0)", "pigs fly")
    }
  }

  @Test func `the first error of parallel threads is thrown after all have run`() {
    #expect {
      try inParallel(20) { if $0 >= 5 { throw TestFailure("number \($0)") } }
    } throws: {
      "\($0)" == "number 5"
    }
  }

  @Test func `the same seed gives the same numbers`() {
    var one = SeededGenerator(seed: 42)
    var two = SeededGenerator(seed: 42)
    #expect(one.bytes(100) == two.bytes(100))
    #expect(SeededGenerator(seed: 43).seed == 43)
  }

  @Test(.seeded) func `a seeded test has one seed for all its generators`() {
    #expect(SeededGenerator().seed == SeededGenerator().seed)
    #expect(SeededGenerator().seed == SeededTrait.current)
  }

  @Test func `a seeded test's failure names the seed`() async throws {
    let outer = IssueHandlingTrait.compactMapIssues { issue in
      // The issue made below has done its service once it names the seed; any other is a true failure.
      issue.comments.contains { contains($0.rawValue, "MOONPORT_SEED=") } ? nil : issue
    }
    try await outer.provideScope(for: Test.current!, testCase: nil) {
      try await SeededTrait().provideScope(for: Test.current!, testCase: nil) {
        Issue.record("an issue that does not name the seed")
      }
    }
  }
}
