import CompletionIO
import TestSupport
import Testing

@testable import ScriptServer

@Suite("The table of connections")
struct ConnectionTableTests {
  @Test("random comings and goings leave exactly those that are there to be found", .seeded)
  func model() {
    var random = SeededGenerator()
    var table = ConnectionTable()
    var handles = HandleTable()
    var present: [HandleKey] = []
    var open = Set<UInt32>()
    var gone: [HandleKey] = []
    for step in 0..<4000 {
      switch Int.random(in: 0..<5, using: &random) {
      case 0..<3 where present.count < 700:
        let key = handles.insert(3, kind: .socket)
        let connection = table.insert(key)
        holds(connection.pointee.phase == .open && connection.pointee.key == key)
        holds(connection.pointee.memberships == -1 && !connection.pointee.object.exists)
        present.append(key)
        open.insert(key.slot)
      case 3 where !present.isEmpty:
        let key = present.randomElement(using: &random)!
        let connection = table.find(key)!
        table.leaveOpen(connection)
        connection.pointee.phase = .ending
        open.remove(key.slot)
      case 4 where !present.isEmpty:
        let key = present.remove(at: Int.random(in: 0..<present.count, using: &random))
        table.remove(table.find(key)!)
        handles.remove(key)
        open.remove(key.slot)
        gone.append(key)
      default: break
      }
      if step % 50 == 0 {
        holds(present.allSatisfy { table.find($0)?.pointee.key == $0 })
        holds(gone.allSatisfy { table.find($0) == nil })
        holds(table.open.count == open.count && Set(table.open) == open)
        holds(Set(table.keys()) == Set(present) && table.keys().count == present.count)
        holds(table.isEmpty == present.isEmpty)
      }
    }
  }

  @Test("a connection stays where it is while others come")
  func stable() {
    var table = ConnectionTable()
    let first = table.insert(HandleKey(slot: 0, generation: 1))
    for slot in 1..<UInt32(1000) { _ = table.insert(HandleKey(slot: slot, generation: 1)) }
    holds(table.find(HandleKey(slot: 0, generation: 1)) == first)
    holds(table.inSlot(0) == first && table.open.count == 1000)
  }

  @Test("a key of another use, an unknown slot and the key of nothing are not found")
  func notFound() {
    var table = ConnectionTable()
    holds(table.find(.none) == nil)
    _ = table.insert(HandleKey(slot: 3, generation: 5))
    holds(table.find(.none) == nil)
    for key in [
      HandleKey(slot: 3, generation: 4), HandleKey(slot: 3, generation: 6), HandleKey(slot: 2, generation: 5),
      HandleKey(slot: 100_000, generation: 1), HandleKey(slot: .max, generation: .max),
    ] {
      holds(table.find(key) == nil)
    }
  }
}
