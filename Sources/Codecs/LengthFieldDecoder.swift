// The length codec: a binary length field leads to the frame's end. It must never trust the announced length: nothing is
// allocated for it, and each sum is checked.

/// A frame is `offset + size + value + adjustment` bytes; the message is the frame without its first `strip` bytes.
enum LengthFieldDecoder {
  static func next(in bytes: UnsafeRawBufferPointer, field: LengthField) -> FrameStep {
    let header = field.headerCount
    // The header is read anew for each piece that arrives: a few bytes, and no state to keep.
    guard bytes.count >= header else { return .incomplete }
    let value = unsafe load(field, from: bytes)
    guard value <= UInt64(Int.max) else { return .failed(.malformed(reason: "the length is negative")) }
    // The header is at most 2^31, the adjustment at most 2^63: their sum cannot overflow, the next one can.
    let (frame, overflow) = Int(value).addingReportingOverflow(header + field.adjustment)
    guard !overflow else { return .failed(.malformed(reason: "the length overflows")) }
    guard frame >= header else {
      return .failed(.malformed(reason: "the frame is shorter than its header"))
    }
    guard frame <= field.maxLength else { return .failed(.tooLong(limit: field.maxLength)) }
    guard frame >= field.strip else {
      return .failed(.malformed(reason: "the frame is shorter than the bytes to strip"))
    }
    return bytes.count < frame ? .incomplete : .message(payload: field.strip..<frame, consumed: frame)
  }

  /// The field's value, whatever its size and byte order. The bytes must hold the whole header.
  @inline(__always)
  private static func load(_ field: LengthField, from bytes: UnsafeRawBufferPointer) -> UInt64 {
    let at = field.offset
    let isBig = field.endian == .big
    switch field.size {
    case 1:
      return unsafe UInt64(bytes[at])
    case 2:
      let raw = unsafe bytes.loadUnaligned(fromByteOffset: at, as: UInt16.self)
      return UInt64(isBig ? UInt16(bigEndian: raw) : UInt16(littleEndian: raw))
    case 3:
      let (first, middle, last) = unsafe (UInt64(bytes[at]), UInt64(bytes[at + 1]), UInt64(bytes[at + 2]))
      return isBig ? first << 16 | middle << 8 | last : last << 16 | middle << 8 | first
    case 4:
      let raw = unsafe bytes.loadUnaligned(fromByteOffset: at, as: UInt32.self)
      return UInt64(isBig ? UInt32(bigEndian: raw) : UInt32(littleEndian: raw))
    default:
      let raw = unsafe bytes.loadUnaligned(fromByteOffset: at, as: UInt64.self)
      return isBig ? UInt64(bigEndian: raw) : UInt64(littleEndian: raw)
    }
  }
}
