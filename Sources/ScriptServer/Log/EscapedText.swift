// Bytes of unknown origin as text that stays on its line and leaves the terminal alone.

/// `bytes` as one harmless piece of text: control characters, escape sequences, line separators and bidirectional
/// controls become `\n`, `\r`, `\t`, `\x1b` or `\u{2028}`, a byte that is not UTF-8 `\xff`, and a backslash `\\`, so
/// that the text can be read back without doubt. Beyond `limit` bytes it ends with "… (N bytes more)".
package func escaped(_ bytes: UnsafeRawBufferPointer, limit: Int = LogLimits.valueBytesMax) -> String {
  var text: [UInt8] = []
  unsafe EscapedText.append(bytes, limit: limit, backslash: .doubled, to: &text)
  return String(decoding: text, as: UTF8.self)
}

/// The bounds of one log line.
package enum LogLimits {
  /// 8 KiB of a message or a field's value: a long traceback fits, a client's megabyte does not.
  package static let valueBytesMax = 8192
  /// 256 bytes of a field's name: a script may take it from a client.
  package static let nameBytesMax = 256
  /// 64 fields; with the bound of a value that keeps any line below a megabyte.
  package static let fieldsMax = 64
  /// Nested fields are shown 8 levels deep: deeper ones are data, not an event, and would need stack.
  package static let depthMax = 8
}

/// Writing escaped text into a line under construction.
enum EscapedText {
  /// What becomes of the characters that are harmless but have a meaning in escaped text.
  enum Backslash {
    /// It stays: the text may have been through `escaped` already.
    case kept
    case doubled
    /// It is doubled, and a quotation mark gets one: the text stands between quotation marks.
    case quoted
  }

  /// Appends the text; beyond `limit` bytes it ends with "… (N bytes more)".
  static func append(_ bytes: UnsafeRawBufferPointer, limit: Int, backslash: Backslash, to text: inout [UInt8]) {
    let end = unsafe UTF8Step.cut(bytes, limit: max(0, limit))
    var index = 0
    while index < end {
      let step = unsafe UTF8Step.at(index, in: bytes)
      if let scalar = step.scalar {
        if (scalar == 0x5c && backslash != .kept) || (scalar == 0x22 && backslash == .quoted) {
          text.append(0x5c)
          text.append(UInt8(scalar))
        } else if UTF8Step.isDangerous(scalar) {
          append(dangerous: scalar, to: &text)
        } else {
          unsafe text.append(contentsOf: bytes[index..<(index + step.byteCount)])
        }
      } else {
        unsafe append(hex: bytes[index], to: &text)
      }
      index += step.byteCount
    }
    if end < bytes.count { text.append(contentsOf: "… (\(bytes.count - end) bytes more)".utf8) }
  }

  /// Appends a string's escaped bytes.
  static func append(_ string: String, limit: Int, backslash: Backslash, to text: inout [UInt8]) {
    var string = string
    string.withUTF8 { unsafe append(UnsafeRawBufferPointer($0), limit: limit, backslash: backslash, to: &text) }
  }

  private static func append(dangerous scalar: UInt32, to text: inout [UInt8]) {
    switch scalar {
    case 0x0a: text.append(contentsOf: "\\n".utf8)
    case 0x0d: text.append(contentsOf: "\\r".utf8)
    case 0x09: text.append(contentsOf: "\\t".utf8)
    case 0..<0x80: append(hex: UInt8(scalar), to: &text)
    default: text.append(contentsOf: "\\u{\(String(scalar, radix: 16))}".utf8)
    }
  }

  private static func append(hex byte: UInt8, to text: inout [UInt8]) {
    text.append(contentsOf: "\\x".utf8)
    text.append(hexDigit(byte >> 4))
    text.append(hexDigit(byte & 15))
  }

  /// The lower-case digit of a number below 16.
  static func hexDigit(_ value: UInt8) -> UInt8 { value < 10 ? 0x30 + value : 0x57 + value }
}
