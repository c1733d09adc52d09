// The bytes that wait to be sent to one client: a chain of chunks from the worker's buffer pool. Small messages are copied
// one behind the other, large broadcasts are shared. An empty queue holds no memory.
// Knows no socket: the worker gathers, sends, and says how much went out.

import CompletionIO
import Glibc

/// Bytes that several queues, also of several workers, send from one place.
@safe
final class SharedBytes: @unchecked Sendable {
  let bytes: UnsafeRawBufferPointer

  /// Takes a malloc'ed block, which is freed with the last reference.
  init(adopting bytes: UnsafeMutableRawBufferPointer) { unsafe self.bytes = UnsafeRawBufferPointer(bytes) }

  /// A copy of `source`, with room for framing around it.
  convenience init(copying source: UnsafeRawBufferPointer) {
    let block = unsafe UnsafeMutableRawBufferPointer(start: malloc(max(source.count, 1)), count: source.count)
    unsafe block.copyMemory(from: source)
    unsafe self.init(adopting: block)
  }

  deinit { unsafe free(UnsafeMutableRawPointer(mutating: bytes.baseAddress)) }
}

/// A link of the chain; its own bytes follow it in the same block, unless they are shared.
@safe
private struct Chunk {
  var next: UnsafeMutablePointer<Chunk>?
  var shared: Unmanaged<SharedBytes>?
  /// The block's size, header included.
  var blockBytes: Int
  var start: Int
  var end: Int
  /// How far `end` may move: 0 where nothing may be appended.
  var capacity: Int
  /// A whole message and nothing else, so that it can be dropped.
  var isOneMessage: Bool

  static let headerBytes = MemoryLayout<Chunk>.stride
}

/// The queue. Trivial storage; the owner must `clear` it before it is forgotten.
@safe
struct SendQueue {
  private var head: UnsafeMutablePointer<Chunk>?
  private var tail: UnsafeMutablePointer<Chunk>?
  /// Bytes that wait.
  private(set) var count = 0
  /// Chunks that hold them.
  private(set) var chunkCount: UInt32 = 0

  /// The first chunk of a queue: what a client with a few requests in flight is answered in one turn, so that it leaves in one
  /// piece.
  private static let chunkBytesMin = 4096
  /// Chunks of a queue that has grown: the largest class that the pool keeps.
  private static let chunkBytesMax = 65536
  /// Chunks gathered for one call: more than fit the usual socket buffer at the largest size, and enough that many tiny ones take few
  /// calls.
  static let gatherMax = 64

  var isEmpty: Bool { count == 0 }

  /// The tail's free bytes for a message of `bytes`, or a new chunk's.
  /// At least one byte: `advance` frees a chunk with its last byte, and a port waits with the first piece that has any.
  @inline(__always)
  mutating func reserve(_ bytes: Int, pool: UnsafeMutablePointer<BufferPool>) -> UnsafeMutableRawPointer {
    if let tail = unsafe tail, unsafe tail.pointee.capacity - tail.pointee.end >= bytes {
      return unsafe place(tail, bytes)
    }
    // What stands behind shared bytes may be followed by more of them.
    let grown = unsafe tail?.pointee.shared == nil ? count : 0
    let wanted = max(bytes, min(max(grown, Self.chunkBytesMin - Chunk.headerBytes), Self.chunkBytesMax / 2))
    return unsafe reserveChunk(bytes, of: wanted, whole: false, pool: pool)
  }

  /// A chunk of its own for a message of `bytes`, which may be dropped as a whole.
  mutating func reserveWhole(_ bytes: Int, pool: UnsafeMutablePointer<BufferPool>) -> UnsafeMutableRawPointer {
    unsafe reserveChunk(bytes, of: bytes, whole: true, pool: pool)
  }

  private mutating func reserveChunk(
    _ bytes: Int, of wanted: Int, whole: Bool, pool: UnsafeMutablePointer<BufferPool>
  ) -> UnsafeMutableRawPointer {
    precondition(bytes > 0, "an empty chunk")
    let block = unsafe pool.pointee.take(minimumBytes: wanted + Chunk.headerBytes)
    let chunk = unsafe block.baseAddress!.bindMemory(to: Chunk.self, capacity: 1)
    unsafe chunk.initialize(
      to: Chunk(
        next: nil, shared: nil, blockBytes: block.count, start: 0, end: 0,
        capacity: whole ? 0 : block.count - Chunk.headerBytes, isOneMessage: whole))
    unsafe link(chunk)
    return unsafe place(chunk, bytes)
  }

  @inline(__always)
  private mutating func place(_ chunk: UnsafeMutablePointer<Chunk>, _ bytes: Int) -> UnsafeMutableRawPointer {
    let end = unsafe chunk.pointee.end
    unsafe chunk.pointee.end = end + bytes
    count += bytes
    return unsafe UnsafeMutableRawPointer(chunk).advanced(by: Chunk.headerBytes + end)
  }

  /// The free bytes behind the last message, at most `limit`; nil where there are none. `extend` makes them part of the queue.
  func spare(limit: Int) -> UnsafeMutableRawBufferPointer? {
    guard let tail = unsafe tail else { return nil }
    let count = unsafe min(tail.pointee.capacity - tail.pointee.end, limit)
    guard count > 0 else { return nil }
    let start = unsafe UnsafeMutableRawPointer(tail).advanced(by: Chunk.headerBytes + tail.pointee.end)
    return unsafe UnsafeMutableRawBufferPointer(start: start, count: count)
  }

  /// Queues the first `bytes` of what `spare` gave, which have been filled since; nothing else was queued or sent meanwhile.
  mutating func extend(by bytes: Int) {
    if bytes > 0, let tail = unsafe tail { _ = unsafe place(tail, bytes) }
  }

  /// Queues bytes that stay where they are.
  mutating func append(_ shared: SharedBytes, pool: UnsafeMutablePointer<BufferPool>) {
    let block = unsafe pool.pointee.take(minimumBytes: Chunk.headerBytes)
    let chunk = unsafe block.baseAddress!.bindMemory(to: Chunk.self, capacity: 1)
    unsafe chunk.initialize(
      to: Chunk(
        next: nil, shared: Unmanaged.passRetained(shared), blockBytes: block.count, start: 0, end: shared.bytes.count,
        capacity: 0, isOneMessage: true))
    unsafe link(chunk)
    unsafe count += shared.bytes.count
  }

  private mutating func link(_ chunk: UnsafeMutablePointer<Chunk>) {
    chunkCount += 1
    if let tail = unsafe tail { unsafe tail.pointee.next = unsafe chunk } else { unsafe head = unsafe chunk }
    unsafe tail = unsafe chunk
  }

  /// Writes the first waiting bytes as at most `limit` pieces; returns how many pieces.
  func gather(into vectors: UnsafeMutablePointer<iovec>, limit: Int = gatherMax) -> Int {
    var pieces = 0
    var next = unsafe head
    while let chunk = unsafe next, pieces < limit {
      unsafe vectors[pieces] = unsafe iovec(
        iov_base: Self.bytes(of: chunk).advanced(by: chunk.pointee.start),
        iov_len: chunk.pointee.end - chunk.pointee.start)
      pieces += 1
      unsafe next = unsafe chunk.pointee.next
    }
    return pieces
  }

  private static func bytes(of chunk: UnsafeMutablePointer<Chunk>) -> UnsafeMutableRawPointer {
    if let shared = unsafe chunk.pointee.shared {
      return unsafe shared._withUnsafeGuaranteedRef { unsafe UnsafeMutableRawPointer(mutating: $0.bytes.baseAddress!) }
    }
    return unsafe UnsafeMutableRawPointer(chunk).advanced(by: Chunk.headerBytes)
  }

  /// The first `sent` bytes have gone out.
  mutating func advance(_ sent: Int, pool: UnsafeMutablePointer<BufferPool>) {
    var left = sent
    count -= sent
    precondition(count >= 0, "more sent than was queued")
    while left > 0, let chunk = unsafe head {
      let waiting = unsafe chunk.pointee.end - chunk.pointee.start
      if left < waiting {
        unsafe chunk.pointee.start += left
        return
      }
      left -= waiting
      unsafe head = unsafe chunk.pointee.next
      if unsafe head == nil { unsafe tail = nil }
      unsafe free(chunk, pool: pool)
    }
  }

  /// Drops whole messages, the oldest first, until `bytes` are free and `messages` are gone, or none is left that may go; returns how
  /// many. The first chunk stays when part of it has gone out or is being sent.
  mutating func dropOldest(
    until bytes: Int, messages: Int = 0, keepFirst: Bool, pool: UnsafeMutablePointer<BufferPool>
  ) -> Int {
    var dropped = 0
    var freed = 0
    guard let first = unsafe head else { return 0 }
    var previous = unsafe keepFirst || first.pointee.start > 0 ? first : nil
    while freed < bytes || dropped < messages {
      guard let chunk = unsafe previous == nil ? head : previous!.pointee.next else { break }
      guard unsafe chunk.pointee.isOneMessage else {
        unsafe previous = unsafe chunk
        continue
      }
      if let previous = unsafe previous {
        unsafe previous.pointee.next = unsafe chunk.pointee.next
      } else {
        unsafe head = unsafe chunk.pointee.next
      }
      if unsafe tail == chunk { unsafe tail = unsafe previous }
      unsafe freed += chunk.pointee.end - chunk.pointee.start
      dropped += 1
      unsafe free(chunk, pool: pool)
    }
    count -= freed
    return dropped
  }

  /// Forgets everything.
  mutating func clear(pool: UnsafeMutablePointer<BufferPool>) {
    while let chunk = unsafe head {
      unsafe head = unsafe chunk.pointee.next
      unsafe free(chunk, pool: pool)
    }
    unsafe tail = nil
    count = 0
  }

  private mutating func free(_ chunk: UnsafeMutablePointer<Chunk>, pool: UnsafeMutablePointer<BufferPool>) {
    chunkCount -= 1
    unsafe chunk.pointee.shared?.release()
    unsafe pool.pointee.give(UnsafeMutableRawBufferPointer(start: chunk, count: chunk.pointee.blockBytes))
  }
}
