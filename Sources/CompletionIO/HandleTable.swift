// The slots of a port: one small record per associated descriptor in one flat array. It must never make a system call.

import CLinux

/// What a slot is waiting for, and how its descriptor is registered.
struct HandleFlags: OptionSet {
  let rawValue: UInt8
  /// A read is submitted; on a listener: accepting.
  static let reading = HandleFlags(rawValue: 1)
  /// A write waits until the descriptor is writable.
  static let writing = HandleFlags(rawValue: 2)
  /// A connect is in progress.
  static let connecting = HandleFlags(rawValue: 4)
  /// The descriptor is in the epoll instance.
  static let registered = HandleFlags(rawValue: 8)
  /// The descriptor cannot be polled and counts as ready at all times.
  static let alwaysReady = HandleFlags(rawValue: 16)
  /// Accepting stopped because descriptors or memory ran out.
  static let exhausted = HandleFlags(rawValue: 32)
  /// It is one of a pair whose bytes are relayed.
  static let relayed = HandleFlags(rawValue: 64)
}

/// One slot: 40 bytes, so that a million idle connections cost 40 MB here and nothing else.
@safe
struct HandleState {
  /// Which use of the slot this is.
  var generation: UInt32
  /// The descriptor's number, -1 while the slot is free.
  var descriptor: CInt = -1
  /// What the epoll instance watches, while `.registered`.
  var interest: Epoll.Events = []
  /// The next free slot, while this one is free.
  var nextFree: UInt32 = HandleTable.noSlot
  var kind: HandleKind = .socket
  var flags: HandleFlags = []
  /// Its side of a relay, while `.relayed`.
  var relay: Int32 = -1
  /// The bytes of the waiting write, while `.writing`; the submitter's memory.
  var writeBase: UnsafeRawPointer?
  var writeBytes = 0

  init(generation: UInt32) { self.generation = generation }
}

/// All slots of one port. Slots are dense from 0 and reused last in, first out, so that the table stays as small as the
/// largest number of handles at one time.
@safe
package struct HandleTable: ~Copyable {
  static let noSlot = UInt32.max
  /// Slots of a new table: a small server's handles in one page of memory.
  static let initialCapacity = 100

  private var slots: UnsafeMutablePointer<HandleState>
  private var capacity: Int
  /// Slots that were ever used.
  private(set) var count = 0
  private var firstFree = noSlot
  private let firstGeneration: UInt32

  /// - Parameter firstGeneration: what a new slot starts with; a test starts near the end of the 32 bits.
  package init(firstGeneration: UInt32 = 1) {
    precondition(firstGeneration > 0, "generation 0 is never issued")
    self.firstGeneration = firstGeneration
    capacity = Self.initialCapacity
    unsafe slots = .allocate(capacity: capacity)
  }

  deinit { unsafe slots.deallocate() }

  /// Occupies a slot with a descriptor and names it.
  package mutating func insert(_ descriptor: CInt, kind: HandleKind) -> HandleKey {
    let slot: UInt32
    if firstFree != Self.noSlot {
      slot = firstFree
      let state = unsafe slots + Int(slot)
      firstFree = unsafe state.pointee.nextFree
      unsafe state.pointee = HandleState(generation: state.pointee.generation + 1)
    } else {
      if count == capacity { grow() }
      slot = UInt32(count)
      count += 1
      unsafe (slots + Int(slot)).initialize(to: HandleState(generation: firstGeneration))
    }
    let state = unsafe slots + Int(slot)
    unsafe state.pointee.descriptor = descriptor
    unsafe state.pointee.kind = kind
    return unsafe HandleKey(slot: slot, generation: state.pointee.generation)
  }

  /// Frees the slot of a current key. A slot whose generations are used up is retired: it could no longer be told from
  /// its first use.
  package mutating func remove(_ key: HandleKey) {
    guard let state = unsafe find(key) else { preconditionFailure("a slot was freed twice") }
    unsafe state.pointee.descriptor = -1
    unsafe state.pointee.flags = []
    if key.generation == .max { return }
    unsafe state.pointee.nextFree = firstFree
    firstFree = key.slot
  }

  /// The slot of a key, or nil when the key's generation is over. Valid until the next `insert`.
  @inline(__always)
  func find(_ key: HandleKey) -> UnsafeMutablePointer<HandleState>? {
    guard Int(key.slot) < count else { return nil }
    let state = unsafe slots + Int(key.slot)
    return unsafe state.pointee.generation == key.generation && state.pointee.descriptor >= 0 ? state : nil
  }

  /// Has the processor fetch a slot that is in use, for a send to come.
  @inline(__always)
  func prefetch(_ slot: UInt32) { unsafe clinux_prefetch(slots + Int(slot)) }

  /// Whether the key's handle is still open.
  package func contains(_ key: HandleKey) -> Bool { unsafe find(key) != nil }

  /// The key of a slot, if it is in use.
  func key(ofSlot slot: Int) -> HandleKey? {
    let state = unsafe slots + slot
    guard unsafe state.pointee.descriptor >= 0 else { return nil }
    return unsafe HandleKey(slot: UInt32(slot), generation: state.pointee.generation)
  }

  private mutating func grow() {
    let larger = UnsafeMutablePointer<HandleState>.allocate(capacity: capacity * 2)
    unsafe larger.moveInitialize(from: slots, count: count)
    unsafe slots.deallocate()
    unsafe slots = larger
    capacity *= 2
  }
}
