import CompletionIO
import TestSupport
import Testing

@testable import ScriptServer

@Suite("Rooms")
struct RoomsTests {
  @Test("random joins and leaves of several workers hold what sets would", .seeded)
  func model() {
    var random = SeededGenerator()
    let directory = RoomDirectory()
    var rooms = Rooms(directory: directory)
    var others = Rooms(directory: directory)
    var table = ConnectionTable()
    let connections = (0..<20).map { table.insert(HandleKey(slot: $0, generation: 1)) }
    let guest = table.insert(HandleKey(slot: 20, generation: 1))
    holds(others.join(guest, room: RoomName(text: "r0")) == .joined)
    let names = (0..<6).map { RoomName(text: "r\($0)") }
    var model = [RoomName: Set<UInt32>]()
    for _ in 0..<5000 {
      let connection = connections.randomElement(using: &random)!
      let name = names.randomElement(using: &random)!
      let slot = connection.pointee.key.slot
      switch Int.random(in: 0..<8, using: &random) {
      case 0..<4:
        let isNew = model[name, default: []].insert(slot).inserted
        holds(rooms.join(connection, room: name) == (isNew ? .joined : .alreadyIn))
      case 4..<7: holds(rooms.leave(connection, room: name) == (model[name, default: []].remove(slot) != nil))
      default:
        rooms.leaveAll(connection)
        for name in names { model[name]?.remove(slot) }
      }
      holds(Set(rooms.names(of: connection)) == Set(names.filter { model[$0]?.contains(slot) ?? false }))
      for name in names {
        let members = rooms.slots(name)
        holds(members.count == Set(members).count && Set(members) == model[name, default: []])
        holds(rooms.memberCount(name) == members.count)
        holds(directory.count(name) == members.count + (name.text == "r0" ? 1 : 0))
      }
    }
    for connection in connections { rooms.leaveAll(connection) }
    others.leaveAll(guest)
    holds(names.allSatisfy { directory.count($0) == 0 && rooms.slots($0).isEmpty })
  }

  @Test("a connection is in so many rooms at most, and may join another once it has left one")
  func bound() {
    var rooms = Rooms(directory: RoomDirectory())
    var table = ConnectionTable()
    let (connection, other) = (
      table.insert(HandleKey(slot: 0, generation: 1)), table.insert(HandleKey(slot: 1, generation: 1))
    )
    func name(_ number: Int) -> RoomName { RoomName(text: "r\(number)") }
    for number in 0..<Rooms.perConnectionMax { holds(rooms.join(connection, room: name(number)) == .joined) }
    holds(rooms.join(connection, room: name(-1)) == .tooMany && rooms.join(connection, room: name(5)) == .alreadyIn)
    holds(rooms.join(other, room: name(-1)) == .joined && rooms.slots(name(-1)) == [1])
    holds(rooms.leave(connection, room: name(5)))
    holds(rooms.join(connection, room: name(-1)) == .joined && rooms.join(connection, room: name(5)) == .tooMany)
    rooms.leaveAll(connection)
    holds(rooms.join(connection, room: name(5)) == .joined)
    for each in [connection, other] { rooms.leaveAll(each) }
  }

  @Test("a connection's rooms are named the latest first, and any bytes may be a name")
  func names() {
    var rooms = Rooms(directory: RoomDirectory())
    var table = ConnectionTable()
    let connection = table.insert(HandleKey(slot: 0, generation: 1))
    let names = [[], [97], [0xc3, 0xa4, 0, 255]].map { (bytes: [UInt8]) in bytes.withUnsafeBytes { RoomName($0) } }
    for name in names { holds(rooms.join(connection, room: name) == .joined) }
    holds(rooms.names(of: connection) == names.reversed())
    holds(!rooms.leave(connection, room: RoomName(text: "b")))
    holds(rooms.leave(connection, room: RoomName(text: "a")))
    holds(rooms.names(of: connection) == [names[2], names[0]])
    rooms.leaveAll(connection)
  }

  @Test("counts from several threads add up")
  func directory() {
    let directory = RoomDirectory()
    let all = RoomName(text: "all")
    withTestThread {
      for _ in 0..<10000 { directory.add(1, to: all) }
    } during: {
      for _ in 0..<10000 { directory.add(1, to: all) }
      for _ in 0..<10000 { directory.add(-1, to: all) }
    }
    holds(directory.count(all) == 10000)
  }
}
