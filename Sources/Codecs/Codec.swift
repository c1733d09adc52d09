// The closed set of codecs and their settings. It must never hold anything about one connection or one message: that is
// the FrameDecoder's.

/// How a byte stream is cut into messages. Trivial: copying it copies a few words and counts no reference.
///
/// Settings that come from a script go through `validated()`; the decoders rely on it.
public enum Codec: Equatable, Sendable {
  /// What one read delivered is one message.
  case raw
  /// Bytes up to LF; one CR before it is dropped too.
  case line(maxLength: Int)
  /// Bytes up to the delimiter.
  case delimiter(Delimiter, maxLength: Int)
  /// Every message has `length` bytes.
  case fixed(length: Int)
  /// A binary length field leads to the frame's end.
  case lengthField(LengthField)
  /// Decimal length, colon, payload, comma (https://cr.yp.to/proto/netstrings.txt).
  case netstring(maxLength: Int)

  /// `max_length` of lines and delimited text where the script gives none.
  public static let lineMaxLengthDefault = 65_536
  /// `max_length` of counted frames where the script gives none.
  public static let frameMaxLengthDefault = 1_048_576
  /// The lengths a script may set. 2 GiB - 1 is more than any one message should occupy, and small enough that sums of
  /// several lengths cannot overflow an Int and that an InboundBuffer can count in 32 bits.
  public static let maxLengthAllowed = 1...0x7fff_ffff

  /// The most bytes of one message: of its payload, for the length codec of the whole frame. `Int.max` for raw.
  public var maxLength: Int {
    switch self {
    case .raw: Int.max
    case .line(let maxLength): maxLength
    case .delimiter(_, let maxLength): maxLength
    case .fixed(let length): length
    case .lengthField(let field): field.maxLength
    case .netstring(let maxLength): maxLength
    }
  }

  /// The most bytes that can remain unconsumed after `.incomplete`: `maxLength` and what of the framing may have come.
  /// A caller never holds more than this and one read before the decoder says `.failed`.
  public var unconsumedMax: Int {
    // Keeps the sums in range even for a limit that was never validated.
    let limit = min(maxLength, Self.maxLengthAllowed.upperBound)
    switch self {
    case .raw: return 0
    case .line: return limit + 1
    case .delimiter(let delimiter, _): return limit + delimiter.count - 1
    case .fixed, .lengthField: return limit - 1
    case .netstring: return limit + NetstringDecoder.digitCount(of: limit) + 1
    }
  }

  /// The codec's `type` as scripts write it.
  public var name: String {
    switch self {
    case .raw: "raw"
    case .line: "line"
    case .delimiter: "delimiter"
    case .fixed: "fixed"
    case .lengthField: "length"
    case .netstring: "netstring"
    }
  }

  /// The codec itself when its lengths are in `maxLengthAllowed`; otherwise an error that names the option.
  public func validated() throws(CodecSettingError) -> Codec {
    switch self {
    case .raw, .lengthField:
      // A LengthField exists only with settings that were checked.
      return self
    case .fixed(let length):
      try check("length", length)
    case .line, .delimiter, .netstring:
      try check("max_length", maxLength)
    }
    return self
  }

  private func check(_ option: String, _ given: Int) throws(CodecSettingError) {
    guard Self.maxLengthAllowed.contains(given) else {
      throw .outside(Self.maxLengthAllowed, codec: name, option: option, given: given)
    }
  }
}
