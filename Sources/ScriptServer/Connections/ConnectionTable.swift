// The connections of one worker by the slot of their handle. Slots live in blocks that never move, so that a pointer into the
// table stays good while handlers open and close other connections.

import CLinux
import CompletionIO

/// The table. Owned by the worker's thread.
@safe
struct ConnectionTable: ~Copyable {
  /// Connections of one block: about 60 KB.
  private static let blockSlots = 256

  private var blocks: [UnsafeMutablePointer<Connection>] = unsafe []
  /// The slots of all clients in phase `open`, in no order, for broadcasts.
  private(set) var open: [UInt32] = []
  private var used = 0

  init() {}

  deinit {
    for index in unsafe blocks.indices {
      let block = unsafe blocks[index]
      unsafe block.deinitialize(count: Self.blockSlots)
      unsafe block.deallocate()
    }
  }

  /// Whether no slot is in use.
  var isEmpty: Bool { used == 0 }

  /// The connection with this key, or nil when it has ended.
  @inline(__always)
  func find(_ key: HandleKey) -> UnsafeMutablePointer<Connection>? {
    let slot = Int(key.slot)
    guard unsafe slot < blocks.count * Self.blockSlots else { return nil }
    let connection = unsafe blocks[slot / Self.blockSlots] + slot % Self.blockSlots
    return unsafe connection.pointee.key == key && key.generation != 0 ? connection : nil
  }

  /// The connection in a slot that is known to be in use.
  func inSlot(_ slot: UInt32) -> UnsafeMutablePointer<Connection> {
    unsafe blocks[Int(slot) / Self.blockSlots] + Int(slot) % Self.blockSlots
  }

  /// Has the processor fetch what sending needs of a connection in a slot that is in use.
  @inline(__always)
  func prefetch(_ slot: UInt32) {
    let start = unsafe UnsafeRawPointer(inSlot(slot))
    unsafe clinux_prefetch(start)
    unsafe clinux_prefetch(start + Connection.sendingBytes - 1)
  }

  /// Puts a new connection into the slot of `key`; one that is no client is not among the open ones.
  mutating func insert(_ key: HandleKey, isClient: Bool = true) -> UnsafeMutablePointer<Connection> {
    while unsafe Int(key.slot) >= blocks.count * Self.blockSlots {
      let block = UnsafeMutablePointer<Connection>.allocate(capacity: Self.blockSlots)
      for index in 0..<Self.blockSlots { unsafe (block + index).initialize(to: Connection()) }
      unsafe blocks.append(block)
    }
    let connection = unsafe inSlot(key.slot)
    unsafe precondition(connection.pointee.phase == .free, "a slot in use was given out again")
    used += 1
    unsafe connection.pointee.key = key
    unsafe connection.pointee.phase = .open
    if isClient {
      unsafe connection.pointee.openIndex = Int32(open.count)
      open.append(key.slot)
    }
    return unsafe connection
  }

  /// Takes it out of the list of open ones; its slot stays until `remove`.
  mutating func leaveOpen(_ connection: UnsafeMutablePointer<Connection>) {
    let index = unsafe Int(connection.pointee.openIndex)
    guard index >= 0 else { return }
    unsafe connection.pointee.openIndex = -1
    let last = open.removeLast()
    if index < open.count {
      open[index] = last
      unsafe inSlot(last).pointee.openIndex = Int32(index)
    }
  }

  /// Frees the slot. Output and timers must be gone.
  mutating func remove(_ connection: UnsafeMutablePointer<Connection>) {
    unsafe leaveOpen(connection)
    unsafe precondition(connection.pointee.output.isEmpty, "a connection with output was forgotten")
    used -= 1
    unsafe connection.pointee = Connection()
  }

  /// The keys of all connections not yet gone, whatever their phase.
  func keys() -> [HandleKey] {
    var keys: [HandleKey] = []
    for place in unsafe blocks.indices {
      let block = unsafe blocks[place]
      for index in 0..<Self.blockSlots where unsafe block[index].phase != .free { unsafe keys.append(block[index].key) }
    }
    return keys
  }
}
