// A list in a shared dictionary: both ends are cheap however long it is. Used under the dictionary's lock only.

import Glibc

/// Values in order, in a chain of blocks.
@safe
final class SharedList {
  /// A value in 16 bytes. A string of up to 8 bytes lies in `word`; what is longer has a block of its own, whose address that is.
  private struct Element {
    var word: UInt64
    var count: UInt32
    var kind: ValueKind

    static let inlineBytesMax = 8

    var hasBlock: Bool { count > Self.inlineBytesMax }
  }

  /// The head of a block; room for `capacity` elements follows it.
  @safe
  private struct Block {
    var previous: UnsafeMutablePointer<Block>?
    var next: UnsafeMutablePointer<Block>?
    /// The elements are those from `start` to before `end`.
    var start: Int32
    var end: Int32
    var capacity: Int32
  }

  private typealias BlockPointer = UnsafeMutablePointer<Block>

  /// Elements of the smallest and of the largest block: a short list is small, a long one has few blocks of 2 KB.
  private static let smallestBlock = 4
  private static let largestBlock = 126
  /// What the allocator takes for a block of memory besides its bytes, about.
  private static let allocationBytes = 16

  private(set) var count = 0
  /// What the list costs, in bytes.
  private(set) var bytes = 0
  private var head: BlockPointer?
  private var tail: BlockPointer?

  deinit {
    var block = unsafe head
    while let current = unsafe block {
      for index in unsafe current.pointee.start..<current.pointee.end {
        Self.free(unsafe Self.elements(current)[Int(index)])
      }
      unsafe block = unsafe current.pointee.next
      unsafe Glibc.free(current)
    }
  }

  private static func elements(_ block: BlockPointer) -> UnsafeMutablePointer<Element> {
    unsafe UnsafeMutableRawPointer(block + 1).assumingMemoryBound(to: Element.self)
  }

  private static func bytes(ofBlock capacity: Int) -> Int {
    MemoryLayout<Block>.stride + capacity * MemoryLayout<Element>.stride + allocationBytes
  }

  private static func bytes(ofContent count: Int) -> Int {
    count > Element.inlineBytesMax ? count + allocationBytes : 0
  }

  private static func free(_ element: Element) {
    if element.hasBlock { unsafe Glibc.free(UnsafeMutableRawPointer(bitPattern: UInt(element.word))) }
  }

  /// Which end of a list.
  enum End {
    case front
    case back
  }

  /// The capacity of the next block.
  private var nextCapacity: Int { min(max(count, Self.smallestBlock), Self.largestBlock) }

  private func hasRoom(_ end: End) -> Bool {
    switch end {
    case .front: unsafe (head?.pointee.start ?? 0) > 0
    case .back:
      if let tail = unsafe tail { unsafe tail.pointee.end < tail.pointee.capacity } else { false }
    }
  }

  /// By how much `bytes` would grow.
  func cost(of value: SharedValue, at end: End) -> Int {
    unsafe Self.bytes(ofContent: value.content.count) + (hasRoom(end) ? 0 : Self.bytes(ofBlock: nextCapacity))
  }

  /// Adds a copy of a value; false, and nothing has changed, when the system has no memory for it.
  func push(_ value: SharedValue, at end: End) -> Bool {
    let cost = cost(of: value, at: end)
    guard let element = Self.make(value) else { return false }
    if !hasRoom(end), !addBlock(end) {
      Self.free(element)
      return false
    }
    bytes += cost
    switch end {
    case .front:
      guard let block = unsafe head else { return false }
      unsafe block.pointee.start -= 1
      unsafe Self.elements(block)[Int(block.pointee.start)] = element
    case .back:
      guard let block = unsafe tail else { return false }
      unsafe Self.elements(block)[Int(block.pointee.end)] = element
      unsafe block.pointee.end += 1
    }
    count += 1
    return true
  }

  private func addBlock(_ end: End) -> Bool {
    let capacity = nextCapacity
    guard let memory = unsafe malloc(Self.bytes(ofBlock: capacity) - Self.allocationBytes) else { return false }
    let block = unsafe memory.assumingMemoryBound(to: Block.self)
    let start = end == .front ? Int32(capacity) : 0
    unsafe block.initialize(
      to: Block(
        previous: end == .back ? tail : nil, next: end == .front ? head : nil, start: start, end: start,
        capacity: Int32(capacity)))
    switch end {
    case .front:
      unsafe head?.pointee.previous = unsafe block
      unsafe head = unsafe block
      if unsafe tail == nil { unsafe tail = unsafe block }
    case .back:
      unsafe tail?.pointee.next = unsafe block
      unsafe tail = unsafe block
      if unsafe head == nil { unsafe head = unsafe block }
    }
    return true
  }

  private static func make(_ value: SharedValue) -> Element? {
    let content = unsafe value.content
    var element = Element(word: value.word, count: UInt32(content.count), kind: value.kind)
    guard let base = content.baseAddress, unsafe !content.isEmpty else { return element }
    if !element.hasBlock {
      unsafe withUnsafeMutableBytes(of: &element.word) { unsafe $0.copyMemory(from: content) }
      return element
    }
    guard let block = unsafe malloc(content.count) else { return nil }
    unsafe block.copyMemory(from: base, byteCount: content.count)
    element.word = UInt64(UInt(bitPattern: block))
    return element
  }

  /// Hands an element's value to `body`, during which its bytes are valid.
  private static func read<Result>(_ element: Element, _ body: (SharedValue) -> Result) -> Result? {
    if element.hasBlock || element.count == 0 {
      let start = unsafe element.hasBlock ? UnsafeRawPointer(bitPattern: UInt(element.word)) : nil
      let content = unsafe UnsafeRawBufferPointer(start: start, count: Int(element.count))
      return unsafe SharedValue(kind: element.kind, word: element.word, content: content).map(body)
    }
    return unsafe withUnsafeBytes(of: element.word) { bytes in
      let content = unsafe UnsafeRawBufferPointer(rebasing: bytes[..<Int(element.count)])
      return unsafe SharedValue(kind: element.kind, word: element.word, content: content).map(body)
    }
  }

  /// Takes the value at one end out and hands it to `body`, during which its bytes are valid; nil when the list is empty.
  func pop<Result>(_ end: End, _ body: (SharedValue) -> Result) -> Result? {
    guard let block = unsafe end == .front ? head : tail, count > 0 else { return nil }
    let index: Int32
    switch end {
    case .front:
      index = unsafe block.pointee.start
      unsafe block.pointee.start += 1
    case .back:
      unsafe block.pointee.end -= 1
      index = unsafe block.pointee.end
    }
    let element = unsafe Self.elements(block)[Int(index)]
    count -= 1
    bytes -= Self.bytes(ofContent: Int(element.count))
    if unsafe block.pointee.start == block.pointee.end { unsafe remove(block) }
    defer { Self.free(element) }
    return Self.read(element, body)
  }

  private func remove(_ block: BlockPointer) {
    if let previous = unsafe block.pointee.previous {
      unsafe previous.pointee.next = unsafe block.pointee.next
    } else {
      unsafe head = unsafe block.pointee.next
    }
    if let next = unsafe block.pointee.next {
      unsafe next.pointee.previous = unsafe block.pointee.previous
    } else {
      unsafe tail = unsafe block.pointee.previous
    }
    bytes -= unsafe Self.bytes(ofBlock: Int(block.pointee.capacity))
    unsafe Glibc.free(block)
  }

  /// Hands the values at `range`, counted from 0, to `body`, in order. Each one's bytes are valid until the next is changed.
  func each(in range: Range<Int>, _ body: (SharedValue) -> Void) {
    var position = 0
    var block = unsafe head
    while let current = unsafe block, position < range.upperBound {
      let start = unsafe Int(current.pointee.start)
      let held = unsafe Int(current.pointee.end) - start
      let first = min(max(range.lowerBound - position, 0), held)
      for index in first..<max(min(range.upperBound - position, held), first) {
        _ = unsafe Self.read(Self.elements(current)[start + index], body)
      }
      position += held
      unsafe block = unsafe current.pointee.next
    }
  }
}
