// The settings of the length codec, checked once when a script names them, so that the decoder can add them up without
// fear of overflow. It must never look at a message.

/// Where a frame's length field lies and what it counts: a frame has `offset + size + value + adjustment` bytes, of
/// which the first `strip` are dropped. The settings of Netty's LengthFieldBasedFrameDecoder.
public struct LengthField: Equatable, Sendable {
  /// Which byte of the field comes first; the raw value is the script's word for it.
  public enum Endian: String, Sendable {
    case big, little
  }

  /// Bytes of the field: 1, 2, 3, 4 or 8.
  public let size: Int
  /// Bytes of the frame before the field.
  public let offset: Int
  /// What is added to the field's value to get the number of bytes that follow the field; may be negative.
  public let adjustment: Int
  /// Bytes dropped from the front of each frame.
  public let strip: Int
  /// The longest frame in bytes, everything counted.
  public let maxLength: Int
  /// The order of the field's bytes.
  public let endian: Endian

  /// Settings that can produce at least one frame; otherwise an error that names the option and what is allowed.
  ///
  /// - Parameter strip: nil drops everything up to and with the length field.
  public init(
    size: Int, endian: Endian = .big, offset: Int = 0, adjustment: Int = 0, strip: Int? = nil,
    maxLength: Int = Codec.frameMaxLengthDefault
  ) throws(CodecSettingError) {
    guard [1, 2, 3, 4, 8].contains(size) else {
      throw CodecSettingError(codec: "length", option: "size", problem: "must be 1, 2, 3, 4 or 8, not \(size)")
    }
    try Self.check("max_length", maxLength, allowed: size...Codec.maxLengthAllowed.upperBound)
    try Self.check(
      "offset", offset, allowed: 0...(maxLength - size), why: " (the length field must lie within max_length)")
    let header = offset + size
    try Self.check(
      "adjustment", adjustment, allowed: -Self.valueMax(size: size)...(maxLength - header),
      why: " (otherwise no frame fits max_length and the field)")
    try Self.check("strip", strip ?? header, allowed: 0...maxLength, why: " (it cannot exceed max_length)")
    self.size = size
    self.endian = endian
    self.offset = offset
    self.adjustment = adjustment
    self.strip = strip ?? header
    self.maxLength = maxLength
  }

  /// The bytes of a frame up to and with the length field: what must have come before its length is known.
  public var headerCount: Int { offset + size }

  /// The greatest length that is meaningful in a field of `size` bytes. Netty's field of 8 bytes is signed.
  static func valueMax(size: Int) -> Int {
    size == 8 ? Int.max : (1 << (8 * size)) - 1
  }

  private static func check(
    _ option: String, _ given: Int, allowed: ClosedRange<Int>, why: String = ""
  ) throws(CodecSettingError) {
    guard allowed.contains(given) else {
      throw .outside(allowed, codec: "length", option: option, given: given, why: why)
    }
  }
}
