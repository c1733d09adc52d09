import Testing

@testable import ScriptServer

@Suite("An output limit")
struct OutputLimitTests {
  @Test("what needs no look is the least of its bounds, in whatever order they are set")
  func unwatched() {
    var limit = OutputLimit()
    #expect(limit.unwatchedBytes == OutputLimit.earlyFlushBytes)
    limit.softBytes = 5000
    #expect(limit.unwatchedBytes == 5000)
    limit.hardBytes = 4000
    #expect(limit.unwatchedBytes == 4000)
    limit.softBytes = 1 << 30
    #expect(limit.unwatchedBytes == 4000)
    limit.hardBytes = 1 << 30
    #expect(limit.unwatchedBytes == OutputLimit.earlyFlushBytes)
    limit.softBytes = 0
    #expect(limit.unwatchedBytes == 0)
  }

  @Test("where the oldest are dropped each message is looked at, and elsewhere the policy makes no difference")
  func policies() {
    for policy in OverflowPolicy.allCases {
      var limit = OutputLimit()
      limit.policy = policy
      limit.softBytes = 3000
      #expect(limit.unwatchedBytes == (policy == .dropOldest ? -1 : 3000), "\(policy)")
      limit.policy = .close
      #expect(limit.unwatchedBytes == 3000)
    }
  }

  @Test("where the oldest are dropped their blocks count, too: four times the limit in bytes, or a megabyte")
  func messages() {
    var limit = OutputLimit()
    #expect(limit.messagesMax == .max)
    limit.policy = .dropOldest
    #expect(limit.messagesMax == 65_536)
    limit.hardBytes = 1000
    #expect(limit.messagesMax == 2048)
    limit.hardBytes = 1 << 50
    #expect(limit.messagesMax == .max)
  }
}
