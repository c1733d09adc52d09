// What one kind of work may take of a turn.

import CompletionIO
import Testing

@testable import ScriptServer

@Suite("A turn's share")
struct TurnShareTests {
  @Test("it is used up after so many pieces, which may come together")
  func pieces() {
    var share = TurnShare(atMost: 10)
    for _ in 0..<9 { share.spend() }
    #expect(!share.isUsedUp && share.left == 1)
    share.spend(5)
    #expect(share.isUsedUp)
  }

  @Test("it is used up after its time, however few the pieces, and the first look only begins it")
  func time() {
    var share = TurnShare()
    share.spend(1000)
    let begin = CompletionPort.clock()
    #expect(!share.isUsedUp)
    while CompletionPort.clock() < begin + 11_000_000 {}
    share.spend()
    #expect(!share.isUsedUp, "the clock is not looked at for one piece")
    share.look()
    #expect(share.isUsedUp)
  }

  @Test("one that has begun is used up at the first look after its time")
  func begun() {
    var share = TurnShare(from: CompletionPort.clock() - 10_000_001)
    share.spend(15)
    #expect(!share.isUsedUp)
    share.spend()
    #expect(share.isUsedUp)
  }

  @Test("what has no next turn is not bounded")
  func unlimited() {
    var share = TurnShare.unlimited
    let begin = CompletionPort.clock()
    share.look()
    while CompletionPort.clock() < begin + 11_000_000 {}
    share.spend(1_000_000)
    #expect(!share.isUsedUp)
  }
}
