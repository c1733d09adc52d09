// One entry of a shared dictionary: one block of memory with a head, the key's bytes and the value's. Readers on any thread see
// only what never changes once the entry is in the table, and atomics; the rest is the writer's, who holds the dictionary's lock.

import Glibc
import Synchronization

/// The head of an entry. The key's bytes and the value's follow it in memory.
@safe
struct SharedEntry: ~Copyable {
  let hash: UInt64
  let kind: ValueKind
  /// The script's own mark, 0 for none.
  let flags: UInt32
  let keyCount: Int
  let contentCount: Int
  /// The value of a boolean, integer or number; the address of a list.
  let word: Atomic<UInt64>
  /// When it expires, by the dictionary's clock in nanoseconds; 0 for never.
  let deadline: Atomic<UInt64>
  /// The dictionary's time of the last use; readers store it too.
  let usedAt: Atomic<UInt64>
  /// The writer's: places in the two heaps, -1 outside.
  var useIndex: Int32 = -1
  var expiryIndex: Int32 = -1

  /// What an entry costs besides the bytes of its key and value: the head, the allocator's own, two places of the table (of
  /// which at most two thirds are taken), and one in each heap.
  static let overheadBytes = MemoryLayout<SharedEntry>.size + 8 + 2 * 8 + 2 * 16
  /// The longest key, as in ngx.shared.DICT.
  static let keyBytesMax = 65_535

  fileprivate init(hash: UInt64, value: SharedValue, flags: UInt32, keyCount: Int, deadline: UInt64, usedAt: UInt64) {
    self.hash = hash
    self.flags = flags
    self.keyCount = keyCount
    kind = value.kind
    contentCount = unsafe value.content.count
    word = Atomic(value.word)
    self.deadline = Atomic(deadline)
    self.usedAt = Atomic(usedAt)
  }

  fileprivate init(listOf hash: UInt64, address: UInt64, keyCount: Int, usedAt: UInt64) {
    self.hash = hash
    self.keyCount = keyCount
    flags = 0
    kind = .list
    contentCount = 0
    word = Atomic(address)
    deadline = Atomic(0)
    self.usedAt = Atomic(usedAt)
  }
}

/// Where an entry lies.
typealias EntryPointer = UnsafeMutablePointer<SharedEntry>

extension UnsafeMutablePointer where Pointee == SharedEntry {
  /// A new entry with copies of key and value; nil when the system has no memory for it.
  static func make(
    key: UnsafeRawBufferPointer, hash: UInt64, value: SharedValue, flags: UInt32, deadline: UInt64, usedAt: UInt64
  ) -> EntryPointer? {
    let content = unsafe value.content
    guard let entry = unsafe allocate(key: key, contentCount: content.count) else { return nil }
    unsafe entry.initialize(
      to: SharedEntry(
        hash: hash, value: value, flags: flags, keyCount: key.count, deadline: deadline, usedAt: usedAt))
    if let base = content.baseAddress, unsafe !content.isEmpty {
      unsafe entry.keyBase.advanced(by: key.count).copyMemory(from: base, byteCount: content.count)
    }
    return unsafe entry
  }

  /// A new entry for an empty list; nil when the system has no memory for it.
  static func makeList(key: UnsafeRawBufferPointer, hash: UInt64, usedAt: UInt64) -> EntryPointer? {
    guard let entry = unsafe allocate(key: key, contentCount: 0) else { return nil }
    let list = unsafe Unmanaged.passRetained(SharedList())
    unsafe entry.initialize(
      to: SharedEntry(
        listOf: hash, address: UInt64(UInt(bitPattern: list.toOpaque())), keyCount: key.count, usedAt: usedAt))
    return unsafe entry
  }

  private static func allocate(key: UnsafeRawBufferPointer, contentCount: Int) -> EntryPointer? {
    guard let block = unsafe malloc(MemoryLayout<SharedEntry>.size + key.count + contentCount) else { return nil }
    let entry = unsafe block.assumingMemoryBound(to: SharedEntry.self)
    if let base = key.baseAddress, unsafe !key.isEmpty {
      unsafe entry.keyBase.copyMemory(from: base, byteCount: key.count)
    }
    return unsafe entry
  }

  /// Gives the memory back, once no reader can have it any more.
  func free() {
    unsafe deinitialize(count: 1)
    unsafe Glibc.free(self)
  }

  private var keyBase: UnsafeMutableRawPointer {
    unsafe UnsafeMutableRawPointer(self).advanced(by: MemoryLayout<SharedEntry>.size)
  }

  /// The key's bytes.
  var key: UnsafeRawBufferPointer { unsafe UnsafeRawBufferPointer(start: keyBase, count: pointee.keyCount) }

  /// The value; nil for a list.
  @inline(__always)
  var value: SharedValue? {
    let content = unsafe UnsafeRawBufferPointer(start: keyBase + pointee.keyCount, count: pointee.contentCount)
    return unsafe SharedValue(
      kind: pointee.kind, word: pointee.word.load(ordering: .acquiring), content: content)
  }

  /// The list; nil for any other value. The writer's.
  var list: SharedList? {
    guard unsafe pointee.kind == .list,
      let address = unsafe UnsafeRawPointer(bitPattern: UInt(pointee.word.load(ordering: .relaxed)))
    else { return nil }
    return unsafe Unmanaged<SharedList>.fromOpaque(address).takeUnretainedValue()
  }

  /// Ends the list of an entry that leaves the table. Readers never look at it.
  func releaseList() {
    guard unsafe pointee.kind == .list,
      let address = unsafe UnsafeRawPointer(bitPattern: UInt(pointee.word.load(ordering: .relaxed)))
    else { return }
    unsafe Unmanaged<SharedList>.fromOpaque(address).release()
  }

  /// What the entry counts against the dictionary's cap.
  var bytes: Int {
    unsafe SharedEntry.overheadBytes + pointee.keyCount + pointee.contentCount + (list?.bytes ?? 0)
  }

  /// Whether the entry has the key.
  @inline(__always)
  func has(_ hash: UInt64, _ key: UnsafeRawBufferPointer) -> Bool {
    guard unsafe pointee.hash == hash, unsafe pointee.keyCount == key.count else { return false }
    guard let base = key.baseAddress else { return true }
    return unsafe memcmp(keyBase, base, key.count) == 0
  }

  /// Whether its time had come at `now`.
  @inline(__always)
  func isExpired(at now: UInt64) -> Bool {
    let deadline = unsafe pointee.deadline.load(ordering: .acquiring)
    return deadline != 0 && deadline <= now
  }
}
