// Entries by a number, the smallest first: by their last use, and by their deadline. Belongs to a dictionary's writer; must never
// know what the numbers mean.

import Glibc

/// Where an entry keeps its place in one of the heaps.
protocol EntryHeapRole {
  /// The place, -1 outside of the heap.
  static func index(of entry: EntryPointer) -> Int32
  static func setIndex(_ index: Int32, of entry: EntryPointer)
}

/// By last use.
enum UseRole: EntryHeapRole {
  static func index(of entry: EntryPointer) -> Int32 { unsafe entry.pointee.useIndex }
  static func setIndex(_ index: Int32, of entry: EntryPointer) { unsafe entry.pointee.useIndex = index }
}

/// By deadline.
enum ExpiryRole: EntryHeapRole {
  static func index(of entry: EntryPointer) -> Int32 { unsafe entry.pointee.expiryIndex }
  static func setIndex(_ index: Int32, of entry: EntryPointer) { unsafe entry.pointee.expiryIndex = index }
}

/// A binary heap of entries, each with a key of its own that is not read from the entry.
@safe
struct EntryHeap<Role: EntryHeapRole>: ~Copyable {
  @safe
  struct Item {
    var key: UInt64
    var entry: EntryPointer
  }

  private(set) var count = 0
  private var capacity = 0
  private var base: UnsafeMutablePointer<Item>?

  deinit { unsafe free(base) }

  /// The item with the smallest key; nil when the heap is empty.
  var first: Item? { count == 0 ? nil : unsafe base.unsafelyUnwrapped[0] }

  /// Adds an entry, or gives it a new key.
  mutating func set(_ entry: EntryPointer, key: UInt64) {
    let index = unsafe Int(Role.index(of: entry))
    if index >= 0 {
      let old = unsafe base.unsafelyUnwrapped[index].key
      unsafe base.unsafelyUnwrapped[index].key = key
      return key < old ? rise(index) : sink(index)
    }
    if count == capacity { grow() }
    unsafe (base.unsafelyUnwrapped + count).initialize(to: Item(key: key, entry: entry))
    count += 1
    rise(count - 1)
  }

  /// Puts `entry` in the place of `old`, with its key.
  mutating func replace(_ old: EntryPointer, by entry: EntryPointer) {
    let index = unsafe Role.index(of: old)
    guard index >= 0 else { return }
    unsafe base.unsafelyUnwrapped[Int(index)].entry = unsafe entry
    unsafe Role.setIndex(index, of: entry)
    unsafe Role.setIndex(-1, of: old)
  }

  /// Takes an entry out; harmless when it is not in the heap.
  mutating func remove(_ entry: EntryPointer) {
    let index = unsafe Int(Role.index(of: entry))
    guard index >= 0 else { return }
    unsafe Role.setIndex(-1, of: entry)
    count -= 1
    guard index < count else { return }
    let removedKey = unsafe base.unsafelyUnwrapped[index].key
    unsafe base.unsafelyUnwrapped[index] = unsafe base.unsafelyUnwrapped[count]
    if unsafe base.unsafelyUnwrapped[index].key < removedKey { rise(index) } else { sink(index) }
  }

  /// Forgets all entries, which are gone: their places are not touched.
  mutating func removeAll() {
    unsafe free(base)
    unsafe base = nil
    capacity = 0
    count = 0
  }

  /// How many keys are at most `key`. Costs what it finds.
  func count(upTo key: UInt64) -> Int {
    var found = 0
    var open = count > 0 ? [0] : []
    while let index = open.popLast() {
      guard index < count, unsafe base.unsafelyUnwrapped[index].key <= key else { continue }
      found += 1
      open.append(2 * index + 1)
      open.append(2 * index + 2)
    }
    return found
  }

  private mutating func grow() {
    capacity = max(64, 2 * capacity)
    guard let block = unsafe realloc(base, capacity * MemoryLayout<Item>.stride) else {
      fatalError("out of memory for a shared dictionary")
    }
    unsafe base = unsafe block.assumingMemoryBound(to: Item.self)
  }

  private mutating func rise(_ start: Int) {
    let items = unsafe base.unsafelyUnwrapped
    let item = unsafe items[start]
    var index = start
    while index > 0 {
      let parent = (index - 1) / 2
      guard unsafe item.key < items[parent].key else { break }
      unsafe items[index] = unsafe items[parent]
      unsafe Role.setIndex(Int32(index), of: items[index].entry)
      index = parent
    }
    unsafe items[index] = item
    unsafe Role.setIndex(Int32(index), of: item.entry)
  }

  private mutating func sink(_ start: Int) {
    let items = unsafe base.unsafelyUnwrapped
    let item = unsafe items[start]
    var index = start
    while 2 * index + 1 < count {
      var child = 2 * index + 1
      if unsafe child + 1 < count && items[child + 1].key < items[child].key { child += 1 }
      guard unsafe items[child].key < item.key else { break }
      unsafe items[index] = unsafe items[child]
      unsafe Role.setIndex(Int32(index), of: items[index].entry)
      index = child
    }
    unsafe items[index] = item
    unsafe Role.setIndex(Int32(index), of: item.entry)
  }
}
