import CompletionIO
import TestSupport
import Testing

@testable import ScriptServer

@Suite("A connection's id")
struct ConnectionIDTests {
  @Test("names its worker and handle, whatever they are, and is never 0 or negative", .seeded)
  func roundTrip() {
    var random = SeededGenerator()
    for _ in 0..<10000 {
      let key = HandleKey(
        slot: .random(in: 0..<UInt32(ConnectionID.slotsMax), using: &random),
        generation: .random(in: 1 ... .max, using: &random))
      let worker = Int.random(in: 0..<ConnectionID.workersMax, using: &random)
      let id = ConnectionID(worker: worker, key: key)
      holds(id.rawValue > 0 && id.workerIndex == worker && id.key == key)
      holds(ConnectionID(rawValue: id.rawValue) == id)
    }
  }

  @Test("the extremes fit", arguments: [1, .max] as [UInt32], [0, UInt32(ConnectionID.slotsMax) - 1] as [UInt32])
  func extremes(_ generation: UInt32, _ slot: UInt32) {
    for worker in [0, ConnectionID.workersMax - 1] {
      let key = HandleKey(slot: slot, generation: generation)
      let id = ConnectionID(worker: worker, key: key)
      holds(id.rawValue > 0 && id.key == key && id.workerIndex == worker)
    }
  }

  @Test("a later use of a slot has a larger id, and no two uses the same")
  func ordering() {
    var seen = Set<Int64>()
    for worker in 0..<4 {
      for slot in 0..<UInt32(50) {
        var last: Int64 = 0
        for generation in 1...UInt32(50) {
          let id = ConnectionID(worker: worker, key: HandleKey(slot: slot, generation: generation)).rawValue
          holds(id > last && seen.insert(id).inserted)
          last = id
        }
      }
    }
  }

  @Test("a number that is no id names no handle", arguments: [0, -1, .min, 255, 1 << 29, .max] as [Int64])
  func foreign(_ number: Int64) {
    let id = ConnectionID(rawValue: number)
    holds((0..<256).contains(id.workerIndex))
    let table = ConnectionTable()
    holds(table.find(id.key) == nil)
  }
}
