// What is put around a payload when it is sent. It must never own or queue the payload.

/// The bytes before and after one payload. Trivial and inline.
public struct Framing: Equatable, Sendable {
  var prefix = InlineBytes()
  var suffix = InlineBytes()

  /// How many bytes go before the payload, 0 to `InlineBytes.capacity`.
  public var prefixCount: Int { prefix.count }
  /// How many bytes go after the payload, 0 to `InlineBytes.capacity`.
  public var suffixCount: Int { suffix.count }
  /// How many bytes are sent besides the payload.
  public var overhead: Int { prefix.count + suffix.count }

  /// Lends the bytes that go before the payload.
  @inline(__always)
  public func withPrefix<Result>(_ body: (UnsafeRawBufferPointer) -> Result) -> Result {
    unsafe prefix.withUnsafeBytes(body)
  }

  /// Lends the bytes that go after the payload.
  @inline(__always)
  public func withSuffix<Result>(_ body: (UnsafeRawBufferPointer) -> Result) -> Result {
    unsafe suffix.withUnsafeBytes(body)
  }

  /// Writes the prefix to `destination`, which has room for `prefixCount` bytes, and returns that count.
  @discardableResult
  public func copyPrefix(to destination: UnsafeMutableRawPointer) -> Int {
    unsafe prefix.copy(to: destination)
  }

  /// Writes the suffix to `destination`, which has room for `suffixCount` bytes, and returns that count.
  @discardableResult
  public func copySuffix(to destination: UnsafeMutableRawPointer) -> Int {
    unsafe suffix.copy(to: destination)
  }

  /// Writes prefix, payload and suffix to `destination`, which has room for `overhead + payload.count` bytes, and
  /// returns that count. `payload` must be as long as the framing was made for.
  @discardableResult
  public func copyFrame(of payload: UnsafeRawBufferPointer, to destination: UnsafeMutableRawPointer) -> Int {
    var end = unsafe copyPrefix(to: destination)
    if let base = payload.baseAddress, payload.count > 0 {
      unsafe (destination + end).copyMemory(from: base, byteCount: payload.count)
      end += payload.count
    }
    unsafe copySuffix(to: destination + end)
    return end + suffixCount
  }
}

/// Why a codec cannot frame a payload. Its description is meant for the script's author.
public enum FramingError: Error, Equatable, Sendable, CustomStringConvertible {
  /// A fixed codec's message has exactly `expected` bytes.
  case wrongLength(expected: Int, given: Int)
  /// The length field does not come first, so the bytes before it are the script's to write.
  case lengthFieldNotFirst(offset: Int)
  /// The length field would have to hold `value`, which is negative or too great for `size` bytes.
  case lengthDoesNotFit(value: Int, size: Int)

  /// For the log and for scripts.
  public var description: String {
    switch self {
    case .wrongLength(let expected, let given):
      "a message of this fixed codec has \(expected) bytes, not \(given)"
    case .lengthFieldNotFirst(let offset):
      "the length field has offset \(offset), so only a frame's author can build it: use write"
    case .lengthDoesNotFit(let value, let size):
      "the length \(value) does not fit a length field of \(size) bytes"
    }
  }
}

extension Codec {
  /// What goes around a payload of `payloadCount` bytes so that the same codec would cut it off again.
  public func framing(payloadCount: Int) throws(FramingError) -> Framing {
    var framing = Framing()
    switch self {
    case .raw:
      break
    case .line:
      framing.suffix.append(UInt8(ascii: "\n"))
    case .delimiter(let delimiter, _):
      framing.suffix = delimiter.bytes
    case .fixed(let length):
      guard payloadCount == length else { throw .wrongLength(expected: length, given: payloadCount) }
    case .lengthField(let field):
      framing.prefix = try field.encoded(payloadCount: payloadCount)
    case .netstring:
      framing.prefix.append(decimal: payloadCount)
      framing.prefix.append(UInt8(ascii: ":"))
      framing.suffix.append(UInt8(ascii: ","))
    }
    return framing
  }

  /// Whether a message of any length gets the same suffix and nothing in front of it.
  public var hasConstantSuffix: Bool {
    switch self {
    case .raw, .line, .delimiter: true
    case .fixed, .lengthField, .netstring: false
    }
  }

  /// How many bytes a payload of `payloadCount` bytes is sent as. Throws what `framing` throws.
  @inlinable @inline(__always)
  public func framedCount(_ payloadCount: Int) throws(FramingError) -> Int {
    switch self {
    case .raw: payloadCount
    case .line: payloadCount + 1
    case .delimiter(let delimiter, _): payloadCount + delimiter.count
    case .fixed, .lengthField, .netstring: payloadCount + (try framing(payloadCount: payloadCount)).overhead
    }
  }

  /// Writes `payload` as it is sent to `destination`, which has room for `framedCount` bytes. The codec must have agreed to a
  /// payload of that length.
  @inlinable @inline(__always)
  public func writeFrame(of payload: UnsafeRawBufferPointer, to destination: UnsafeMutableRawPointer) {
    switch self {
    case .raw, .line:
      if let base = payload.baseAddress { unsafe destination.copyMemory(from: base, byteCount: payload.count) }
      if case .line = self {
        unsafe destination.storeBytes(of: UInt8(ascii: "\n"), toByteOffset: payload.count, as: UInt8.self)
      }
    case .delimiter, .fixed, .lengthField, .netstring:
      _ = unsafe try? framing(payloadCount: payload.count).copyFrame(of: payload, to: destination)
    }
  }
}

extension LengthField {
  /// The length field that goes before a payload of `payloadCount` bytes (Netty's LengthFieldPrepender).
  fileprivate func encoded(payloadCount: Int) throws(FramingError) -> InlineBytes {
    guard offset == 0 else { throw .lengthFieldNotFirst(offset: offset) }
    let (value, overflow) = payloadCount.subtractingReportingOverflow(adjustment)
    guard !overflow, value >= 0, value <= Self.valueMax(size: size) else {
      throw .lengthDoesNotFit(value: value, size: size)
    }
    var bytes = InlineBytes()
    for index in 0..<size {
      let shift = 8 * (endian == .big ? size - 1 - index : index)
      bytes.append(UInt8(truncatingIfNeeded: value >> shift))
    }
    return bytes
  }
}

extension InlineBytes {
  /// Appends a number that is not negative in decimal, without leading zeros.
  fileprivate mutating func append(decimal number: Int) {
    var divisor = 1
    while number / divisor >= 10 { divisor *= 10 }
    while divisor > 0 {
      append(UInt8(ascii: "0") + UInt8(number / divisor % 10))
      divisor /= 10
    }
  }
}
