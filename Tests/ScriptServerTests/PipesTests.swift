import CompletionIO
import Testing

@testable import ScriptServer

@Suite("Pairs of piped connections")
struct PipesTests {
  @Test("each side is found by its connection, and an index is used again once its pair is out")
  func table() {
    let keys = (1...2).map { HandleKey(slot: $0, generation: 1) }
    var table = PipeTable()
    let ticket = WaitTicket(token: TaskToken(slot: 1, generation: 1), number: 7)
    let index = table.insert(Pipe(first: PipeSide(key: keys[0]), second: PipeSide(key: keys[1]), ticket: ticket))
    table[index].update(keys[1]) { $0.hasEnded = true }
    #expect(!table[index].side(of: keys[0]).hasEnded)
    #expect(table[index].side(of: keys[1]).hasEnded)
    #expect(table[index].other(than: keys[0]).key == keys[1])
    #expect(table.remove(index).ticket == ticket)
    #expect(table[index].ticket == nil, "a pair that is out would be taken for one that somebody waits for")
    #expect(table.insert(Pipe(first: PipeSide(), second: PipeSide())) == index)
  }
}
