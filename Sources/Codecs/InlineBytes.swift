// A few bytes held in the value itself, so that delimiters, prefixes and suffixes cost no allocation and no reference
// counting. It must never know what its bytes mean.

/// Up to `capacity` bytes, stored inline. Trivial: copying it is copying memory.
public struct InlineBytes: Equatable, Sendable {
  /// The longest prefix is a netstring's: 19 digits of `Int.max` and a colon. Rounded up to whole words.
  public static let capacity = 24

  private var storage: InlineArray<24, UInt8>
  private var used: UInt8

  /// No bytes.
  public init() {
    storage = InlineArray(repeating: 0)
    used = 0
  }

  /// How many bytes there are, 0 to `capacity`.
  public var count: Int { Int(used) }

  /// The byte at `index`, which must be below `count`.
  public subscript(index: Int) -> UInt8 {
    precondition(index < count, "index beyond the inline bytes")
    return storage[index]
  }

  /// Adds one byte. There must be room for it.
  public mutating func append(_ byte: UInt8) {
    precondition(count < Self.capacity, "the inline bytes are full")
    storage[count] = byte
    used += 1
  }

  /// Lends the bytes for the duration of `body`.
  @inline(__always)
  public func withUnsafeBytes<Result>(_ body: (UnsafeRawBufferPointer) -> Result) -> Result {
    unsafe storage.span.withUnsafeBytes { unsafe body(UnsafeRawBufferPointer(rebasing: $0.prefix(count))) }
  }

  /// Copies all bytes to `destination`, which must have room for `count` bytes, and returns `count`.
  @discardableResult
  public func copy(to destination: UnsafeMutableRawPointer) -> Int {
    unsafe withUnsafeBytes { bytes in
      guard let base = bytes.baseAddress, bytes.count > 0 else { return }
      unsafe destination.copyMemory(from: base, byteCount: bytes.count)
    }
    return count
  }

  /// Whether both hold the same bytes.
  public static func == (left: InlineBytes, right: InlineBytes) -> Bool {
    guard left.used == right.used else { return false }
    for index in 0..<left.count where left.storage[index] != right.storage[index] {
      return false
    }
    return true
  }
}
