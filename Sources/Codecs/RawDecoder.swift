// The raw codec: bytes as they come. It must never keep bytes back.

/// All bytes at hand are one message.
enum RawDecoder {
  static func next(in bytes: UnsafeRawBufferPointer) -> FrameStep {
    let count = bytes.count
    return count == 0 ? .incomplete : .message(payload: 0..<count, consumed: count)
  }
}
