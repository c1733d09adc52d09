// Buffers that are taken and given back all the time. One thread's own. It must never know what they hold.

import Glibc

/// Buffers in size classes of powers of two, kept for reuse up to a bound. For one thread.
@safe
public struct BufferPool: ~Copyable {
  /// The smallest class: a few small messages.
  public static let smallestBytes = 512
  /// The largest class: one read. What is larger is allocated and freed each time, since malloc maps it by itself.
  public static let largestBytes = 65536
  /// 512, 1,024, … 65,536.
  private static let classCount = 8
  /// What is kept in all classes together: what one batch of 256 completions can give back and the next take again when
  /// each holds 16 KiB, a socket buffer's initial size.
  public static let keptBytesMax = 256 * 16384

  /// The first buffer of each class's list; the link to the next stands in the buffer itself.
  private let firstFree: UnsafeMutablePointer<UnsafeMutableRawPointer?>
  /// Bytes in all lists.
  public private(set) var keptBytes = 0
  /// Buffers taken and not given back yet.
  public private(set) var takenCount = 0
  /// Calls of malloc so far.
  public private(set) var allocationCount = 0

  /// An empty pool.
  public init() {
    unsafe firstFree = .allocate(capacity: Self.classCount)
    unsafe firstFree.initialize(repeating: nil, count: Self.classCount)
  }

  deinit {
    unsafe Self.free(firstFree)
    unsafe firstFree.deallocate()
  }

  /// Frees what is kept for reuse.
  public mutating func drain() {
    unsafe Self.free(firstFree)
    keptBytes = 0
  }

  /// Frees all lists and leaves them empty.
  private static func free(_ firstFree: UnsafeMutablePointer<UnsafeMutableRawPointer?>) {
    for index in 0..<classCount {
      while let buffer = unsafe firstFree[index] {
        unsafe firstFree[index] = buffer.load(as: UnsafeMutableRawPointer?.self)
        unsafe Glibc.free(buffer)
      }
    }
  }

  /// A buffer of at least `minimumBytes` (0 or more); its count is the whole size, which `give` needs again. The bytes
  /// are not initialised.
  public mutating func take(minimumBytes: Int) -> UnsafeMutableRawBufferPointer {
    precondition(minimumBytes >= 0, "a buffer cannot be smaller than nothing")
    takenCount += 1
    guard minimumBytes <= Self.largestBytes else { return unsafe allocate(bytes: minimumBytes) }
    let index = Self.classIndex(bytes: minimumBytes)
    let bytes = Self.smallestBytes << index
    guard let buffer = unsafe firstFree[index] else { return unsafe allocate(bytes: bytes) }
    unsafe firstFree[index] = buffer.load(as: UnsafeMutableRawPointer?.self)
    keptBytes -= bytes
    return unsafe UnsafeMutableRawBufferPointer(start: buffer, count: bytes)
  }

  /// Takes a buffer back, whole, as `take` gave it.
  public mutating func give(_ buffer: UnsafeMutableRawBufferPointer) {
    precondition(takenCount > 0, "more buffers given back than taken")
    takenCount -= 1
    guard buffer.count <= Self.largestBytes, keptBytes + buffer.count <= Self.keptBytesMax else {
      unsafe Glibc.free(buffer.baseAddress)
      return
    }
    let index = Self.classIndex(bytes: buffer.count)
    precondition(buffer.count == Self.smallestBytes << index, "a buffer was given back with another size")
    unsafe buffer.baseAddress!.storeBytes(of: firstFree[index], as: UnsafeMutableRawPointer?.self)
    unsafe firstFree[index] = buffer.baseAddress
    keptBytes += buffer.count
  }

  /// The smallest class that holds so many bytes, which are at most the largest class's.
  private static func classIndex(bytes: Int) -> Int {
    bytes <= smallestBytes ? 0 : Int.bitWidth - ((bytes - 1) / smallestBytes).leadingZeroBitCount
  }

  private mutating func allocate(bytes: Int) -> UnsafeMutableRawBufferPointer {
    allocationCount += 1
    guard let memory = unsafe malloc(bytes) else { fatalError("out of memory for a buffer of \(bytes) bytes") }
    return unsafe UnsafeMutableRawBufferPointer(start: memory, count: bytes)
  }
}
