// The fixed codec: every message has the same length. It must never look at the bytes.

/// The first `length` bytes are one message.
enum FixedDecoder {
  static func next(in bytes: UnsafeRawBufferPointer, length: Int) -> FrameStep {
    // A message of no bytes would never end: the settings were not validated.
    precondition(length > 0, "a fixed message has at least one byte")
    return bytes.count < length ? .incomplete : .message(payload: 0..<length, consumed: length)
  }
}
