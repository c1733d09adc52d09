import TestSupport
import Testing

@testable import ScriptServer

@Suite("A queue")
struct QueueTests {
  @Test("what goes in comes out in that order, however both are mixed", .seeded)
  func order() {
    var random = SeededGenerator()
    var queue = Queue<Int>()
    var (next, expected) = (0, 0)
    for _ in 0..<200 {
      for _ in 0..<Int.random(in: 0..<200, using: &random) {
        if Bool.random(using: &random) {
          queue.append(next)
          next += 1
        } else {
          queue.append(contentsOf: [next, next + 1])
          next += 2
        }
      }
      for _ in 0..<Int.random(in: 0..<600, using: &random) {
        guard let taken = queue.popFirst() else { break }
        holds(taken == expected)
        expected += 1
      }
      holds(queue.count == next - expected && queue.isEmpty == (next == expected))
    }
    queue.removeAll()
    holds(queue.isEmpty && queue.popFirst() == nil)
  }

  @Test("one that is never empty keeps its size")
  func bounded() {
    var queue = Queue<Int>()
    queue.append(0)
    for number in 1..<100_000 {
      queue.append(number)
      holds(queue.popFirst() == number - 1)
      holds(queue.placeCount <= 4098)
    }
  }
}
