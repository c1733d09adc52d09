// The bytes that end a message of the delimiter codec. It must never know how they are searched for.

/// A delimiter of 1 to 16 bytes, stored inline.
public struct Delimiter: Equatable, Sendable {
  /// How many bytes a delimiter may have; the upper bound is the contract's.
  public static let countAllowed = 1...16

  let bytes: InlineBytes

  /// A delimiter of these bytes, or the error that tells a script how many bytes are allowed.
  public init(validating source: some Collection<UInt8>) throws(CodecSettingError) {
    let given = source.count
    guard Self.countAllowed.contains(given) else {
      let allowed = "must have \(Self.countAllowed.lowerBound) to \(Self.countAllowed.upperBound) bytes"
      throw CodecSettingError(codec: "delimiter", option: "delimiter", problem: "\(allowed), not \(given)")
    }
    var bytes = InlineBytes()
    for byte in source {
      bytes.append(byte)
    }
    self.bytes = bytes
  }

  /// A delimiter of these bytes; nil unless there are 1 to 16 of them.
  public init?(_ source: some Collection<UInt8>) {
    guard let delimiter = try? Delimiter(validating: source) else { return nil }
    self = delimiter
  }

  /// How many bytes it has, 1 to 16.
  public var count: Int { bytes.count }

  /// Lends the bytes for the duration of `body`.
  @inline(__always)
  public func withUnsafeBytes<Result>(_ body: (UnsafeRawBufferPointer) -> Result) -> Result {
    unsafe bytes.withUnsafeBytes(body)
  }
}
