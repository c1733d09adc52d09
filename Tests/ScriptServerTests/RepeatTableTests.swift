import Testing

@testable import ScriptServer

struct RepeatTableTests {
  @Test("the table forgets the oldest event when it is full, and tells what that one owes")
  func bound() {
    var table = RepeatTable()
    var summaries: [RepeatTable.Summary] = []
    for round in 0..<20 {
      #expect(table.admit(-1, level: .error, message: "first", now: 1, summaries: &summaries) == (round < 10))
    }
    for hash in 0..<RepeatTable.entriesMax - 1 {
      #expect(table.admit(hash, level: .info, message: "m", now: 2, summaries: &summaries))
    }
    #expect(summaries.isEmpty)
    #expect(table.admit(9999, level: .info, message: "m", now: 3, summaries: &summaries))
    #expect(summaries.map(\.count) == [10])
    #expect(summaries.map(\.excerpt) == ["first"])
    #expect(summaries.map(\.level) == [.error])
  }

  @Test("a second later the same event is written again")
  func window() {
    var table = RepeatTable()
    var summaries: [RepeatTable.Summary] = []
    for round in 0..<100 {
      let now = UInt64(round) * 100_000_000
      #expect(
        table.admit(1, level: .info, message: String(repeating: "é", count: 300), now: now, summaries: &summaries))
    }
    #expect(summaries.isEmpty)
    for _ in 0..<20 { _ = table.admit(1, level: .info, message: "", now: 9_900_000_000, summaries: &summaries) }
    table.sweep(now: .max, summaries: &summaries)
    #expect(summaries.first?.excerpt == String(repeating: "é", count: 128))
  }
}
