// A 64-bit hash that names content: the same on every machine and in every run, so that people can compare generations.
// It protects against accidents, not against somebody who makes two scripts with one hash.

/// FNV-1a with 64 bits (Fowler, Noll, Vo; draft-eastlake-fnv).
struct ContentHash {
  private(set) var value: UInt64 = 0xcbf2_9ce4_8422_2325
  private static let prime: UInt64 = 0x0000_0100_0000_01b3

  /// The hash of `bytes` alone.
  static func of(_ bytes: [UInt8]) -> UInt64 {
    var hash = ContentHash()
    hash.update(bytes)
    return hash.value
  }

  mutating func update(_ bytes: some Sequence<UInt8>) {
    var sum = value
    for byte in bytes { sum = (sum ^ UInt64(byte)) &* Self.prime }
    value = sum
  }

  /// Adds one part of a list, with its length first so that no two lists of parts run together to the same bytes.
  mutating func update(part bytes: some Collection<UInt8>) {
    let count = UInt64(bytes.count)
    for shift in stride(from: UInt64(0), to: 64, by: 8) {
      update(CollectionOfOne(UInt8(truncatingIfNeeded: count >> shift)))
    }
    update(bytes)
  }

  /// 16 lower-case hex digits.
  var text: String {
    let digits = String(value, radix: 16)
    return String(repeating: "0", count: 16 - digits.count) + digits
  }
}
