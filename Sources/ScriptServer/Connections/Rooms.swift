// The rooms of one worker: which of its connections are in which room. Joining, leaving and visiting cost what they touch.
// Other workers know only the counts, through the directory.

import CompletionIO

/// How many connections of all workers are in each room. The one thing about rooms that crosses threads.
final class RoomDirectory: @unchecked Sendable {
  private let lock = ThreadLock()
  private var counts: [RoomName: Int] = [:]

  func add(_ change: Int, to room: RoomName) {
    lock.withLock {
      let count = counts[room, default: 0] + change
      counts[room] = count == 0 ? nil : count
    }
  }

  /// How often a worker had to wait for another one that was joining or leaving.
  var contentions: Int { lock.contentions }

  /// Connections in the room, in all workers.
  func count(_ room: RoomName) -> Int { lock.withLock { counts[room, default: 0] } }
}

/// One connection in one room: a link of the connection's chain, and an entry of the room's list.
private struct Membership {
  var room: Int32
  var slot: UInt32
  /// Place in the room's list.
  var position: Int32
  /// The connection's next membership, or the next free record; -1 at the end.
  var next: Int32
}

private struct Room {
  /// nil while the record is free.
  var name: RoomName?
  /// Memberships, in no order.
  var members: [Int32] = []
}

/// The rooms. Owned by the worker's thread.
struct Rooms: ~Copyable {
  private var indexes: [RoomName: Int32] = [:]
  private var rooms: [Room] = []
  private var freeRooms: [Int32] = []
  private var memberships: [Membership] = []
  private var freeMembership: Int32 = -1
  private let directory: RoomDirectory

  /// Rooms of one connection: joining looks through them.
  static let perConnectionMax = 4096
  /// Rooms of one worker, of up to 370 bytes with their names, and connections in them, of some 24 each.
  static let roomsMax = 1 << 20
  static let membershipsMax = 1 << 22

  private var membershipCount = 0

  init(directory: RoomDirectory) { self.directory = directory }

  /// What came of joining.
  enum Joining { case joined, alreadyIn, tooMany }

  /// Puts a connection into a room.
  mutating func join(_ connection: UnsafeMutablePointer<Connection>, room name: RoomName) -> Joining {
    if unsafe find(connection, room: name) >= 0 { return .alreadyIn }
    guard unsafe count(of: connection) < Self.perConnectionMax, membershipCount < Self.membershipsMax,
      indexes.count < Self.roomsMax || indexes[name] != nil
    else { return .tooMany }
    membershipCount += 1
    let room = roomIndex(name)
    let membership = unsafe Membership(
      room: room, slot: connection.pointee.key.slot, position: Int32(rooms[Int(room)].members.count),
      next: connection.pointee.memberships)
    let index = store(membership)
    rooms[Int(room)].members.append(index)
    unsafe connection.pointee.memberships = index
    directory.add(1, to: name)
    return .joined
  }

  /// How many rooms a connection is in.
  private func count(of connection: UnsafeMutablePointer<Connection>) -> Int {
    var count = 0
    var index = unsafe connection.pointee.memberships
    while index >= 0 {
      count += 1
      index = memberships[Int(index)].next
    }
    return count
  }

  /// Whether a connection is in a room.
  func contains(_ connection: UnsafeMutablePointer<Connection>, room name: RoomName) -> Bool {
    unsafe find(connection, room: name) >= 0
  }

  /// Takes a connection out of a room; false when it is not in it.
  mutating func leave(_ connection: UnsafeMutablePointer<Connection>, room name: RoomName) -> Bool {
    let index = unsafe find(connection, room: name)
    guard index >= 0 else { return false }
    if unsafe connection.pointee.memberships == index {
      unsafe connection.pointee.memberships = memberships[Int(index)].next
    } else {
      var previous = unsafe connection.pointee.memberships
      while memberships[Int(previous)].next != index { previous = memberships[Int(previous)].next }
      memberships[Int(previous)].next = memberships[Int(index)].next
    }
    removeFromRoom(index)
    return true
  }

  /// Takes a connection out of all its rooms.
  mutating func leaveAll(_ connection: UnsafeMutablePointer<Connection>) {
    while unsafe connection.pointee.memberships >= 0 {
      let index = unsafe connection.pointee.memberships
      unsafe connection.pointee.memberships = memberships[Int(index)].next
      removeFromRoom(index)
    }
  }

  /// The names of a connection's rooms, the latest first.
  func names(of connection: UnsafeMutablePointer<Connection>) -> [RoomName] {
    var names: [RoomName] = []
    var index = unsafe connection.pointee.memberships
    while index >= 0 {
      if let name = rooms[Int(memberships[Int(index)].room)].name { names.append(name) }
      index = memberships[Int(index)].next
    }
    return names
  }

  /// How many connections of this worker are in the room; for `slot(of:at:)`.
  func memberCount(_ name: RoomName) -> Int { indexes[name].map { rooms[Int($0)].members.count } ?? 0 }

  /// The members' slots. A copy: handlers may join and leave while it is walked.
  func slots(_ name: RoomName) -> [UInt32] {
    var slots: [UInt32] = []
    appendSlots(name, to: &slots)
    return slots
  }

  /// Appends the members' slots.
  func appendSlots(_ name: RoomName, to slots: inout [UInt32]) {
    guard let room = indexes[name] else { return }
    for index in rooms[Int(room)].members { slots.append(memberships[Int(index)].slot) }
  }

  private func find(_ connection: UnsafeMutablePointer<Connection>, room name: RoomName) -> Int32 {
    guard let room = indexes[name] else { return -1 }
    var index = unsafe connection.pointee.memberships
    while index >= 0, memberships[Int(index)].room != room { index = memberships[Int(index)].next }
    return index
  }

  private mutating func roomIndex(_ name: RoomName) -> Int32 {
    if let index = indexes[name] { return index }
    let index: Int32
    if let free = freeRooms.popLast() {
      index = free
      rooms[Int(index)] = Room(name: name)
    } else {
      index = Int32(rooms.count)
      rooms.append(Room(name: name))
    }
    indexes[name] = index
    return index
  }

  private mutating func store(_ membership: Membership) -> Int32 {
    guard freeMembership >= 0 else {
      memberships.append(membership)
      return Int32(memberships.count - 1)
    }
    let index = freeMembership
    freeMembership = memberships[Int(index)].next
    memberships[Int(index)] = membership
    return index
  }

  /// Takes a membership out of its room's list and frees the record; an empty room is forgotten.
  private mutating func removeFromRoom(_ index: Int32) {
    let membership = memberships[Int(index)]
    let room = Int(membership.room)
    let last = rooms[room].members.removeLast()
    if last != index {
      rooms[room].members[Int(membership.position)] = last
      memberships[Int(last)].position = membership.position
    }
    guard let name = rooms[room].name else { preconditionFailure("a membership in a room that was freed") }
    directory.add(-1, to: name)
    if rooms[room].members.isEmpty {
      indexes[name] = nil
      rooms[room] = Room()
      freeRooms.append(Int32(room))
    }
    memberships[Int(index)].next = freeMembership
    freeMembership = index
    membershipCount -= 1
  }
}
