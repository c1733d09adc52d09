// The delimiter codec: bytes up to a delimiter of 1 to 16 bytes, which may arrive in pieces and overlap itself. It must
// never look again at bytes that cannot be part of a delimiter.

import func Glibc.memchr
import func Glibc.memcmp

/// Bytes up to the first occurrence of the delimiter are one message; `maxLength` does not count the delimiter.
enum DelimiterDecoder {
  static func next(
    in bytes: UnsafeRawBufferPointer, scanned: inout Int, delimiter: Delimiter, maxLength: Int
  ) -> FrameStep {
    unsafe delimiter.withUnsafeBytes { delimiter in
      unsafe next(in: bytes, scanned: &scanned, delimiter: delimiter, maxLength: maxLength)
    }
  }

  @inline(__always)
  private static func next(
    in bytes: UnsafeRawBufferPointer, scanned: inout Int, delimiter: UnsafeRawBufferPointer, maxLength: Int
  ) -> FrameStep {
    let count = bytes.count
    // A delimiter must begin within the first maxLength + 1 bytes, or the payload is too long.
    let searched = count - delimiter.count > maxLength ? maxLength + delimiter.count : count
    if let payloadCount = unsafe find(delimiter, in: bytes, from: scanned, to: searched) {
      scanned = 0
      return .message(payload: 0..<payloadCount, consumed: payloadCount + delimiter.count)
    }
    // Where a delimiter could still begin: behind the places that had enough bytes to tell.
    let undecided = max(scanned, searched - delimiter.count + 1)
    if count > maxLength {
      guard unsafe canBegin(delimiter, in: bytes, from: undecided, through: maxLength) else {
        return .failed(.tooLong(limit: maxLength))
      }
    }
    scanned = undecided
    return .incomplete
  }

  /// The first place at or after `start` where the whole delimiter lies before `end`.
  @inline(__always)
  private static func find(
    _ delimiter: UnsafeRawBufferPointer, in bytes: UnsafeRawBufferPointer, from start: Int, to end: Int
  ) -> Int? {
    guard let base = bytes.baseAddress, let pattern = delimiter.baseAddress else { return nil }
    let first = unsafe Int32(delimiter[0])
    let placesEnd = end - delimiter.count + 1
    var place = start
    while place < placesEnd {
      guard let found = unsafe memchr(base + place, first, placesEnd - place) else { return nil }
      place = unsafe UnsafeRawPointer(found) - base
      if unsafe memcmp(base + place, pattern, delimiter.count) == 0 { return place }
      place += 1
    }
    return nil
  }

  /// Whether the bytes from some place in `start...last` on are the beginning of a delimiter.
  private static func canBegin(
    _ delimiter: UnsafeRawBufferPointer, in bytes: UnsafeRawBufferPointer, from start: Int, through last: Int
  ) -> Bool {
    guard let base = bytes.baseAddress, let pattern = delimiter.baseAddress else { return false }
    var place = start
    while place <= last && place < bytes.count {
      let known = min(bytes.count - place, delimiter.count)
      if unsafe memcmp(base + place, pattern, known) == 0 { return true }
      place += 1
    }
    return false
  }
}
