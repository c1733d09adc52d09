// The table of a shared dictionary: from a key to its entry. Readers walk it without a lock while one writer changes it: a place
// is one atomic word, an entry is published by storing its address, and a part that has grown is a new array, published the
// same way. What was taken out is freed when no reader can have it any more; see ReaderRegistry.

import Glibc
import Synchronization

/// An open hash table in parts, each of which grows by itself so that no growing takes long.
///
/// `find` is for any thread that reads under the registry's protection, or holds the lock; all else is the writer's.
@safe
struct EntryTable: ~Copyable {
  /// A million entries are 4,000 a part: moving them takes under half a millisecond.
  private static let partBits = 8
  /// How many parts there are.
  static let partCount = 1 << partBits
  private static let smallestPart = 8

  /// The addresses of the parts' arrays, 0 while a part is empty.
  private let parts: UnsafeMutablePointer<Atomic<UInt>>
  /// How many entries there are. Behind a pointer, as all that changes, since readers have the table itself.
  private let counted: UnsafeMutablePointer<Int>

  /// What an array of places begins with; it never changes. The writer's tally is next, then the places.
  private struct Head {
    var mask: UInt64
  }

  /// What the writer counts of an array.
  private struct Tally {
    var live = 0
    /// Places that are not empty, those of removed entries included.
    var taken = 0
  }

  /// An empty place ends a search; that of a removed entry does not.
  private static let empty: UInt = 0
  private static let removed: UInt = 1

  init() {
    unsafe counted = .allocate(capacity: 1)
    unsafe counted.initialize(to: 0)
    unsafe parts = .allocate(capacity: Self.partCount)
    for index in 0..<Self.partCount { unsafe (parts + index).initialize(to: Atomic(0)) }
  }

  deinit {
    for index in 0..<Self.partCount { unsafe free(Self.array((parts + index).pointee.load(ordering: .relaxed))) }
    unsafe parts.deinitialize(count: Self.partCount)
    unsafe parts.deallocate()
    unsafe counted.deallocate()
  }

  /// Entries in the table.
  var count: Int { unsafe counted.pointee }

  private static func array(_ address: UInt) -> UnsafeMutablePointer<Head>? {
    unsafe UnsafeMutablePointer(bitPattern: address)
  }

  private static func tally(_ array: UnsafeMutablePointer<Head>) -> UnsafeMutablePointer<Tally> {
    unsafe UnsafeMutableRawPointer(array + 1).assumingMemoryBound(to: Tally.self)
  }

  private static func places(_ array: UnsafeMutablePointer<Head>) -> UnsafeMutablePointer<Atomic<UInt>> {
    unsafe UnsafeMutableRawPointer(tally(array) + 1).assumingMemoryBound(to: Atomic<UInt>.self)
  }

  /// The entry with the key.
  ///
  /// The loads are sequentially consistent, as is the store with which a reader says that it reads: so either it sees that an
  /// entry has been taken out, or who took it out sees the reader. Here that costs nothing.
  @inline(__always)
  func find(_ hash: UInt64, _ key: UnsafeRawBufferPointer) -> EntryPointer? {
    unsafe search(hash, key)?.entry
  }

  @inline(__always)
  private func search(
    _ hash: UInt64, _ key: UnsafeRawBufferPointer
  ) -> (entry: EntryPointer, place: UnsafeMutablePointer<Atomic<UInt>>)? {
    let address = unsafe (parts + Self.part(hash)).pointee.load(ordering: .sequentiallyConsistent)
    guard let array = unsafe Self.array(address) else { return nil }
    let places = unsafe Self.places(array)
    let mask = unsafe array.pointee.mask
    var index = hash & mask
    while true {
      let place = unsafe places + Int(index)
      let bits = unsafe place.pointee.load(ordering: .sequentiallyConsistent)
      if bits == Self.empty { return nil }
      if bits != Self.removed, let entry = unsafe EntryPointer(bitPattern: bits), unsafe entry.has(hash, key) {
        return unsafe (entry, place)
      }
      index = (index + 1) & mask
    }
  }

  private static func part(_ hash: UInt64) -> Int { Int(hash >> UInt64(64 - partBits)) }

  /// Puts `entry` in the place of the one with the same key.
  func replace(_ old: EntryPointer, by entry: EntryPointer) {
    guard let (_, place) = unsafe search(old.pointee.hash, old.key) else {
      preconditionFailure("an entry that is not in its table")
    }
    unsafe place.pointee.store(UInt(bitPattern: entry), ordering: .sequentiallyConsistent)
  }

  /// Adds an entry whose key is not in the table. Returns the array that was replaced by a larger one, to be freed by `free` when
  /// no reader can have it any more.
  func insert(_ entry: EntryPointer) -> UnsafeMutableRawPointer? {
    let part = unsafe parts + Self.part(unsafe entry.pointee.hash)
    let old = unsafe part.pointee.load(ordering: .relaxed)
    unsafe counted.pointee += 1
    // At most two thirds taken, so that a search is short and ends.
    if let array = unsafe Self.array(old),
      unsafe 3 * (Self.tally(array).pointee.taken + 1) <= 2 * Int(array.pointee.mask + 1)
    {
      unsafe Self.put(entry, in: array)
      return nil
    }
    let larger = unsafe Self.grown(Self.array(old))
    unsafe Self.put(entry, in: larger)
    unsafe part.pointee.store(UInt(bitPattern: larger), ordering: .sequentiallyConsistent)
    return unsafe UnsafeMutableRawPointer(bitPattern: old)
  }

  /// Takes an entry out.
  func remove(_ entry: EntryPointer) {
    guard let (_, place) = unsafe search(entry.pointee.hash, entry.key) else {
      preconditionFailure("an entry that is not in its table")
    }
    unsafe place.pointee.store(Self.removed, ordering: .sequentiallyConsistent)
    if let array = unsafe Self.array((parts + Self.part(unsafe entry.pointee.hash)).pointee.load(ordering: .relaxed)) {
      unsafe Self.tally(array).pointee.live -= 1
    }
    unsafe counted.pointee -= 1
  }

  /// Puts an entry into the first place that has none.
  private static func put(_ entry: EntryPointer, in array: UnsafeMutablePointer<Head>) {
    let places = unsafe places(array)
    let mask = unsafe array.pointee.mask
    var index = unsafe entry.pointee.hash & mask
    while unsafe (places + Int(index)).pointee.load(ordering: .relaxed) > removed { index = (index + 1) & mask }
    let place = unsafe places + Int(index)
    if unsafe place.pointee.load(ordering: .relaxed) == empty { unsafe tally(array).pointee.taken += 1 }
    unsafe tally(array).pointee.live += 1
    unsafe place.pointee.store(UInt(bitPattern: entry), ordering: .sequentiallyConsistent)
  }

  /// A new array with the entries of `old` and room for as many more.
  private static func grown(_ old: UnsafeMutablePointer<Head>?) -> UnsafeMutablePointer<Head> {
    var live = 0
    if let old = unsafe old { live = unsafe tally(old).pointee.live }
    var capacity = smallestPart
    while capacity < 3 * (live + 1) { capacity *= 2 }
    let size = MemoryLayout<Head>.size + MemoryLayout<Tally>.size + capacity * MemoryLayout<Atomic<UInt>>.size
    guard let block = unsafe calloc(1, size) else { fatalError("out of memory for a shared dictionary's table") }
    let array = unsafe block.assumingMemoryBound(to: Head.self)
    unsafe array.initialize(to: Head(mask: UInt64(capacity - 1)))
    unsafe tally(array).initialize(to: Tally())
    unsafe each(old) { unsafe put($0, in: array) }
    return unsafe array
  }

  /// Calls `body` with each entry of an array; it may remove that entry.
  private static func each(_ array: UnsafeMutablePointer<Head>?, _ body: (EntryPointer) -> Void) {
    guard let array = unsafe array else { return }
    let places = unsafe places(array)
    for index in unsafe 0...Int(array.pointee.mask) {
      let bits = unsafe (places + index).pointee.load(ordering: .relaxed)
      if bits > removed, let entry = unsafe EntryPointer(bitPattern: bits) { unsafe body(entry) }
    }
  }

  /// Calls `body` with each entry of a part.
  func each(ofPart part: Int, _ body: (EntryPointer) -> Void) {
    unsafe Self.each(Self.array((parts + part).pointee.load(ordering: .relaxed)), body)
  }

  /// Calls `body` with each entry.
  func each(_ body: (EntryPointer) -> Void) {
    for part in 0..<Self.partCount { unsafe each(ofPart: part, body) }
  }

  /// Empties the table; returns what was in it.
  func empty() -> EmptiedTable {
    let emptied = EmptiedTable(
      arrays: (0..<Self.partCount).map { unsafe (parts + $0).pointee.load(ordering: .relaxed) }, count: count)
    for index in 0..<Self.partCount { unsafe (parts + index).pointee.store(0, ordering: .sequentiallyConsistent) }
    unsafe counted.pointee = 0
    return emptied
  }

  /// Frees an array with its entries.
  fileprivate static func freeAll(_ address: UInt) {
    let array = unsafe array(address)
    unsafe each(array) {
      unsafe $0.releaseList()
      unsafe $0.free()
    }
    unsafe free(array)
  }
}

/// What a table held when it was emptied. Nobody finds it any more, but readers may still look at it.
struct EmptiedTable: Sendable {
  fileprivate let arrays: [UInt]
  /// How many entries.
  let count: Int

  /// Frees it, once no reader can have it any more. Takes 0.2 µs an entry.
  func free() { for address in arrays { EntryTable.freeAll(address) } }
}
