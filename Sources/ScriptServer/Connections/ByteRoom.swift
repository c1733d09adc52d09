// Memory for what a turn gathers. Knows not what it is.

import Glibc

/// Bytes one behind the other in memory that grows and is kept.
@safe
struct ByteRoom: ~Copyable {
  private var base: UnsafeMutableRawPointer?
  private var capacity = 0
  private(set) var count = 0

  var bytes: UnsafeRawBufferPointer { unsafe UnsafeRawBufferPointer(start: base, count: count) }

  /// Room for `more` bytes, which count from now on; the caller fills it.
  mutating func reserve(_ more: Int) -> UnsafeMutableRawPointer {
    if unsafe base == nil || count + more > capacity {
      capacity = max(count + more, 2 * capacity, 4096)
      guard let larger = unsafe realloc(base, capacity) else { fatalError("out of memory for what a turn sends") }
      unsafe base = larger
    }
    defer { count += more }
    return unsafe base! + count
  }

  mutating func append(_ bytes: UnsafeRawBufferPointer) {
    let room = unsafe reserve(bytes.count)
    if let source = bytes.baseAddress { unsafe room.copyMemory(from: source, byteCount: bytes.count) }
  }

  mutating func removeAll(keepingUpTo keptBytes: Int) {
    count = 0
    if capacity <= keptBytes { return }
    unsafe free(base)
    unsafe base = nil
    capacity = 0
  }

  deinit { unsafe free(base) }
}
