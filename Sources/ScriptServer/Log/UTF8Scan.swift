// Reads bytes of unknown origin as UTF-8, one character at a time, and says which of them a line of text must not hold.
// The one place that knows what is dangerous in text; how it is written instead is its callers' business.

/// One step through bytes that may or may not be UTF-8 (RFC 3629).
struct UTF8Step {
  /// The character; nil when the bytes are none.
  let scalar: UInt32?
  /// Bytes to go on by, at least 1.
  let byteCount: Int

  /// The character that begins at `index`. An invalid sequence is passed one byte at a time.
  static func at(_ index: Int, in bytes: UnsafeRawBufferPointer) -> UTF8Step {
    let first = unsafe bytes[index]
    if first < 0x80 { return UTF8Step(scalar: UInt32(first), byteCount: 1) }
    let invalid = UTF8Step(scalar: nil, byteCount: 1)
    let byteCount: Int
    var scalar: UInt32
    // The second byte's range also excludes overlong forms, surrogates and what lies beyond U+10FFFF.
    var second: ClosedRange<UInt8> = 0x80...0xbf
    switch first {
    case 0xc2...0xdf: (byteCount, scalar) = (2, UInt32(first & 0x1f))
    case 0xe0: (byteCount, scalar, second) = (3, 0, 0xa0...0xbf)
    case 0xed: (byteCount, scalar, second) = (3, 0xd, 0x80...0x9f)
    case 0xe1...0xef: (byteCount, scalar) = (3, UInt32(first & 0x0f))
    case 0xf0: (byteCount, scalar, second) = (4, 0, 0x90...0xbf)
    case 0xf1...0xf3: (byteCount, scalar) = (4, UInt32(first & 0x07))
    case 0xf4: (byteCount, scalar, second) = (4, 4, 0x80...0x8f)
    default: return invalid
    }
    guard index + byteCount <= bytes.count else { return invalid }
    for offset in 1..<byteCount {
      let byte = unsafe bytes[index + offset]
      guard (offset == 1 ? second : 0x80...0xbf).contains(byte) else { return invalid }
      scalar = scalar << 6 | UInt32(byte & 0x3f)
    }
    return UTF8Step(scalar: scalar, byteCount: byteCount)
  }

  /// Whether a character could end a line, steer a terminal or show text in another order than it is in: C0, DEL, C1,
  /// the line and paragraph separators and the bidirectional controls (Unicode Standard Annex 9).
  static func isDangerous(_ scalar: UInt32) -> Bool {
    switch scalar {
    case 0...0x1f, 0x7f...0x9f, 0x061c, 0x200e, 0x200f, 0x2028...0x202e, 0x2066...0x2069: true
    default: false
    }
  }

  /// How many of the first `limit` bytes to keep so that no character is cut in two.
  static func cut(_ bytes: UnsafeRawBufferPointer, limit: Int) -> Int {
    guard bytes.count > limit else { return bytes.count }
    // A character has at most three bytes after its first.
    for start in stride(from: limit, to: max(limit - 4, -1), by: -1) {
      let isInside = unsafe bytes[start] & 0xc0 == 0x80
      if !isInside { return start }
    }
    return limit
  }
}
