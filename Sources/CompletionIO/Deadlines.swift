// Points in time with a payload, earliest first. One thread's own. It must never look at a clock.

/// Names one scheduled deadline: slot and generation, so that the key of a deadline that passed or was cancelled is
/// recognised although its slot is in use again.
public struct DeadlineKey: Hashable, Sendable {
  var slot: UInt32
  var generation: UInt32

  /// A key that is never issued.
  public static let none = DeadlineKey(slot: 0, generation: 0)
}

/// Deadlines in an indexed 4-ary heap: every operation takes O(log n), and a cancelled deadline leaves nothing behind.
/// For one thread.
///
/// Four children per node make the heap half as deep as two do, and four entries of 16 bytes are one cache line.
/// Deadlines at the same time come in the order in which they were scheduled.
@safe
public struct Deadlines: ~Copyable {
  /// A place in the heap.
  private struct Entry {
    var time: UInt64
    /// Breaks ties; compared modulo 2^32, which is right while equal times lie less than 2^31 schedulings apart.
    var order: UInt32
    var slot: UInt32

    func isBefore(_ other: Entry) -> Bool {
      time != other.time ? time < other.time : Int32(bitPattern: order &- other.order) < 0
    }
  }

  /// What a key leads to.
  private struct Slot {
    var payload: UInt64
    var generation: UInt32
    /// Place in the heap, or the next free slot.
    var position: UInt32
  }

  private static let noSlot = UInt32.max
  /// Room of a new value: 1 KiB of heap.
  private static let initialCapacity = 64

  private var heap: UnsafeMutablePointer<Entry>
  private var slots: UnsafeMutablePointer<Slot>
  private var capacity: Int
  private var slotCount = 0
  private var firstFree = noSlot
  private var nextOrder: UInt32 = 0
  /// Deadlines that are scheduled.
  public private(set) var count = 0

  /// No deadlines.
  public init() {
    capacity = Self.initialCapacity
    unsafe heap = .allocate(capacity: capacity)
    unsafe slots = .allocate(capacity: capacity)
  }

  deinit {
    unsafe heap.deallocate()
    unsafe slots.deallocate()
  }

  /// Deadlines that there is room for; tests see by it that cancelled ones leave nothing.
  package var slotsUsed: Int { slotCount }

  /// The earliest time, or nil when nothing is scheduled.
  public var nextDeadline: UInt64? { unsafe count == 0 ? nil : heap[0].time }

  /// Adds a deadline. `time` is in the caller's unit, commonly nanoseconds of `CompletionPort.clock()`.
  public mutating func schedule(at time: UInt64, payload: UInt64) -> DeadlineKey {
    let slot = takeSlot()
    unsafe slots[Int(slot)].payload = payload
    count += 1
    moveUp(Entry(time: time, order: takeOrder(), slot: slot), from: count - 1)
    return unsafe DeadlineKey(slot: slot, generation: slots[Int(slot)].generation)
  }

  /// Removes a deadline. Returns its payload, or nil when it has passed or was cancelled already.
  @discardableResult
  public mutating func cancel(_ key: DeadlineKey) -> UInt64? {
    guard let position = position(of: key) else { return nil }
    let payload = unsafe slots[Int(key.slot)].payload
    remove(at: position)
    return payload
  }

  /// Moves a deadline to another time; it then counts as scheduled now. False when it has passed or was cancelled.
  @discardableResult
  public mutating func reschedule(_ key: DeadlineKey, at time: UInt64) -> Bool {
    guard let position = position(of: key) else { return false }
    place(Entry(time: time, order: takeOrder(), slot: key.slot), near: position)
    return true
  }

  /// Removes the earliest deadline that is not after `now` and returns its payload; nil when there is none.
  public mutating func popExpired(at now: UInt64) -> UInt64? {
    guard count > 0, unsafe heap[0].time <= now else { return nil }
    let payload = unsafe slots[Int(heap[0].slot)].payload
    remove(at: 0)
    return payload
  }

  // MARK: the heap

  private func position(of key: DeadlineKey) -> Int? {
    guard key.generation != 0, Int(key.slot) < slotCount else { return nil }
    guard unsafe slots[Int(key.slot)].generation == key.generation else { return nil }
    return unsafe Int(slots[Int(key.slot)].position)
  }

  private mutating func remove(at position: Int) {
    unsafe freeSlot(heap[position].slot)
    count -= 1
    if position < count { unsafe place(heap[count], near: position) }
  }

  /// Puts an entry where the hole at `position` belongs to it, upwards or downwards.
  private mutating func place(_ entry: Entry, near position: Int) {
    if position > 0, unsafe entry.isBefore(heap[(position - 1) / 4]) {
      moveUp(entry, from: position)
    } else {
      moveDown(entry, from: position)
    }
  }

  private mutating func moveUp(_ entry: Entry, from start: Int) {
    var position = start
    while position > 0 {
      let parent = (position - 1) / 4
      guard unsafe entry.isBefore(heap[parent]) else { break }
      unsafe set(heap[parent], at: position)
      position = parent
    }
    set(entry, at: position)
  }

  private mutating func moveDown(_ entry: Entry, from start: Int) {
    var position = start
    while true {
      let firstChild = position * 4 + 1
      guard firstChild < count else { break }
      var earliest = firstChild
      for child in firstChild..<min(firstChild + 4, count) where unsafe heap[child].isBefore(heap[earliest]) {
        earliest = child
      }
      guard unsafe heap[earliest].isBefore(entry) else { break }
      unsafe set(heap[earliest], at: position)
      position = earliest
    }
    set(entry, at: position)
  }

  private mutating func set(_ entry: Entry, at position: Int) {
    unsafe (heap + position).initialize(to: entry)
    unsafe slots[Int(entry.slot)].position = UInt32(position)
  }

  private mutating func takeOrder() -> UInt32 {
    defer { nextOrder &+= 1 }
    return nextOrder
  }

  // MARK: the slots

  private mutating func takeSlot() -> UInt32 {
    if firstFree != Self.noSlot {
      let slot = firstFree
      firstFree = unsafe slots[Int(slot)].position
      return slot
    }
    if slotCount == capacity { grow() }
    unsafe (slots + slotCount).initialize(to: Slot(payload: 0, generation: 1, position: 0))
    slotCount += 1
    return UInt32(slotCount - 1)
  }

  /// Ends the slot's generation. A slot that used all 2^32 is retired, so that no key ever means two deadlines.
  private mutating func freeSlot(_ slot: UInt32) {
    let isUsedUp = unsafe slots[Int(slot)].generation == .max
    unsafe slots[Int(slot)].generation &+= 1
    if isUsedUp { return }
    unsafe slots[Int(slot)].position = firstFree
    firstFree = slot
  }

  private mutating func grow() {
    let largerHeap = UnsafeMutablePointer<Entry>.allocate(capacity: capacity * 2)
    unsafe largerHeap.moveInitialize(from: heap, count: count)
    unsafe heap.deallocate()
    unsafe heap = largerHeap
    let largerSlots = UnsafeMutablePointer<Slot>.allocate(capacity: capacity * 2)
    unsafe largerSlots.moveInitialize(from: slots, count: slotCount)
    unsafe slots.deallocate()
    unsafe slots = largerSlots
    capacity *= 2
  }
}
