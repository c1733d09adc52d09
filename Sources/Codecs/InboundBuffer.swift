// The bytes of one connection that complete no message yet. It must never know what they mean, nor where they came
// from.

import func Glibc.free
import func Glibc.malloc
import func Glibc.memmove

/// A queue of bytes that lie in one piece: bytes go in at the end and are consumed at the front. Empty, it owns no
/// memory, so an idle connection costs its 24 bytes only.
///
/// Appending and consuming cost amortised constant time per byte: live bytes move only when the memory doubles, or when
/// at least as many were consumed since they last moved; at `limit` alone they may have to move sooner.
@safe
public struct InboundBuffer: ~Copyable {
  /// The first allocation: most partial messages are short, and a smaller block would save nothing in malloc.
  private static let capacityMin = 64
  /// Positions are kept in 32 bits so that the buffer is three words.
  private static let countMax = Int(UInt32.max)

  private var memory: UnsafeMutableRawPointer?
  private var startIndex: UInt32 = 0
  private var endIndex: UInt32 = 0
  private var allocated: UInt32 = 0

  /// An empty buffer, without memory.
  public init() {}

  deinit {
    unsafe free(memory)
  }

  /// How many bytes are held.
  public var count: Int { Int(endIndex - startIndex) }
  /// Whether no bytes are held, and then no memory either.
  public var isEmpty: Bool { startIndex == endIndex }
  /// How many bytes of memory are held.
  public var capacity: Int { Int(allocated) }

  /// The bytes held, valid until the buffer is next changed.
  public var bytes: UnsafeRawBufferPointer {
    guard let memory = unsafe memory else { return unsafe UnsafeRawBufferPointer(start: nil, count: 0) }
    return unsafe UnsafeRawBufferPointer(start: memory + Int(startIndex), count: count)
  }

  /// Adds bytes at the end.
  ///
  /// - Parameters:
  ///   - source: the bytes; they must not lie in this buffer.
  ///   - limit: what the caller may come to hold at most, in bytes (`Codec.unconsumedMax` and one read). Memory grows by
  ///     doubling but never beyond it, unless the bytes themselves exceed it.
  /// - Returns: false, with nothing added, when the memory cannot be had.
  public mutating func append(_ source: UnsafeRawBufferPointer, limit: Int) -> Bool {
    guard let base = source.baseAddress, source.count > 0 else { return true }
    guard source.count <= Self.countMax - count else { return false }
    guard makeRoom(for: source.count, limit: limit), let memory = unsafe memory else { return false }
    unsafe (memory + Int(endIndex)).copyMemory(from: base, byteCount: source.count)
    endIndex += UInt32(source.count)
    return true
  }

  /// Drops the first `consumed` bytes, at most `count`. The last byte gives the memory back.
  public mutating func consume(_ consumed: Int) {
    precondition(consumed >= 0 && consumed <= count, "more consumed than held")
    startIndex += UInt32(consumed)
    if isEmpty { release() }
  }

  /// Drops all bytes and gives the memory back.
  public mutating func release() {
    unsafe free(memory)
    unsafe memory = nil
    startIndex = 0
    endIndex = 0
    allocated = 0
  }

  /// Makes room for `added` bytes at the end: none needed, by moving the bytes to the front, or in new memory.
  private mutating func makeRoom(for added: Int, limit: Int) -> Bool {
    let live = count
    let needed = live + added
    if Int(endIndex) + added <= capacity { return true }
    let grown = max(needed, min(max(2 * capacity, Self.capacityMin), limit, Self.countMax))
    // Moving pays when it was earned by consuming, and is all that is left when the memory may not grow.
    let mayMove = needed <= capacity && (Int(startIndex) >= live || grown <= capacity)
    return mayMove ? moveToFront() : moveToNewMemory(capacity: grown)
  }

  private mutating func moveToFront() -> Bool {
    guard let memory = unsafe memory else { return false }
    let live = count
    unsafe _ = memmove(memory, memory + Int(startIndex), live)
    startIndex = 0
    endIndex = UInt32(live)
    return true
  }

  private mutating func moveToNewMemory(capacity: Int) -> Bool {
    guard let new = unsafe malloc(capacity) else { return false }
    let live = count
    if let memory = unsafe memory {
      unsafe new.copyMemory(from: memory + Int(startIndex), byteCount: live)
      unsafe free(memory)
    }
    unsafe memory = new
    startIndex = 0
    endIndex = UInt32(live)
    allocated = UInt32(capacity)
    return true
  }
}
