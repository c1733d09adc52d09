// The line codec: bytes up to LF, less one CR before it. It must never look at a byte twice, since a peer may send a
// long line one byte at a time.

import func Glibc.memchr

/// Bytes up to LF are one message; `maxLength` counts neither the LF nor the CR dropped with it.
enum LineDecoder {
  private static let lineFeed: UInt8 = 0x0a
  private static let carriageReturn: UInt8 = 0x0d

  @inline(__always)
  static func next(in bytes: UnsafeRawBufferPointer, scanned: inout Int, maxLength: Int) -> FrameStep {
    let count = bytes.count
    // The longest line with its CR and LF; bytes behind it cannot belong to a line that passes.
    let searched = count - 2 > maxLength ? maxLength + 2 : count
    if let lineFeedAt = unsafe find(in: bytes, from: scanned, to: searched) {
      let hasReturn = unsafe lineFeedAt > 0 && bytes[lineFeedAt - 1] == carriageReturn
      let payloadCount = hasReturn ? lineFeedAt - 1 : lineFeedAt
      guard payloadCount <= maxLength else { return .failed(.tooLong(limit: maxLength)) }
      scanned = 0
      return .message(payload: 0..<payloadCount, consumed: lineFeedAt + 1)
    }
    if count > maxLength {
      // One byte over the limit may still be the CR of the line's end.
      guard unsafe count - 1 == maxLength && bytes[maxLength] == carriageReturn else {
        return .failed(.tooLong(limit: maxLength))
      }
    }
    scanned = searched
    return .incomplete
  }

  @inline(__always)
  private static func find(in bytes: UnsafeRawBufferPointer, from start: Int, to end: Int) -> Int? {
    guard start < end, let base = bytes.baseAddress else { return nil }
    guard let found = unsafe memchr(base + start, Int32(lineFeed), end - start) else { return nil }
    return unsafe UnsafeRawPointer(found) - base
  }
}
