// The netstring codec (https://cr.yp.to/proto/netstrings.txt): decimal length, colon, payload, comma. It must never
// accept a second spelling of the same length, nor read more digits than max_length has.

/// The payload of a netstring is one message.
enum NetstringDecoder {
  private static let zero = UInt8(ascii: "0")
  private static let nine = UInt8(ascii: "9")
  private static let colon = UInt8(ascii: ":")
  private static let comma = UInt8(ascii: ",")

  /// What the leading digits say.
  private enum Header {
    /// The payload has `length` bytes and begins at `start`.
    case known(length: Int, start: Int)
    /// The digits are in order so far.
    case partial
    case failed(FrameError)
  }

  static func next(in bytes: UnsafeRawBufferPointer, maxLength: Int) -> FrameStep {
    // The header is read anew for each piece that arrives: at most 10 digits, and no state to keep.
    switch unsafe header(of: bytes, maxLength: maxLength) {
    case .failed(let error): return .failed(error)
    case .partial: return .incomplete
    case .known(let length, let start):
      let end = start + length
      guard bytes.count > end else { return .incomplete }
      guard unsafe bytes[end] == comma else {
        return .failed(.malformed(reason: "a netstring does not end with a comma"))
      }
      return .message(payload: start..<end, consumed: end + 1)
    }
  }

  /// How many decimal digits a length has.
  static func digitCount(of length: Int) -> Int {
    var digits = 1
    var rest = length / 10
    while rest > 0 {
      digits += 1
      rest /= 10
    }
    return digits
  }

  @inline(__always)
  private static func header(of bytes: UnsafeRawBufferPointer, maxLength: Int) -> Header {
    // Keeps the sum below in range even for a limit that was never validated.
    let limit = min(maxLength, Codec.maxLengthAllowed.upperBound)
    var length = 0
    var index = 0
    while index < bytes.count {
      let byte = unsafe bytes[index]
      if byte == colon && index > 0 { return .known(length: length, start: index + 1) }
      guard byte >= zero && byte <= nine else {
        return .failed(.malformed(reason: "a netstring's length is digits and a colon"))
      }
      guard length > 0 || index == 0 else {
        return .failed(.malformed(reason: "a netstring's length has a leading zero"))
      }
      length = length * 10 + Int(byte - zero)
      guard length <= limit else { return .failed(.tooLong(limit: limit)) }
      index += 1
    }
    return .partial
  }
}
