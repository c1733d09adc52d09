// A minimal JSON writer for the status; it writes what it is told and checks nothing. Must never know the status.

/// Writes JSON text (RFC 8259) piece by piece: `beginObject`, `key`, `value`, `endObject`.
struct StatusJSON {
  private(set) var bytes: [UInt8] = []
  private var needsComma = false

  mutating func beginObject() { open("{") }
  mutating func endObject() { close("}") }
  mutating func beginArray() { open("[") }
  mutating func endArray() { close("]") }

  mutating func key(_ name: String) {
    string(name)
    bytes.append(UInt8(ascii: ":"))
    needsComma = false
  }

  mutating func value(_ text: String) { string(text) }
  mutating func value(_ number: Int64) { token(String(number)) }
  mutating func value(_ flag: Bool) { token(flag ? "true" : "false") }
  mutating func null() { token("null") }

  /// A fraction, to the millisecond. JSON has no infinities and no NaN: they become null.
  mutating func value(_ number: Double) {
    guard number.magnitude < 1e15 else { return null() }
    token(String((number * 1000).rounded() / 1000))
  }

  private mutating func token(_ text: String) {
    separate()
    bytes += Array(text.utf8)
    needsComma = true
  }

  private mutating func open(_ bracket: Unicode.Scalar) {
    separate()
    bytes.append(UInt8(ascii: bracket))
    needsComma = false
  }

  private mutating func close(_ bracket: Unicode.Scalar) {
    bytes.append(UInt8(ascii: bracket))
    needsComma = true
  }

  private mutating func separate() {
    if needsComma { bytes.append(UInt8(ascii: ",")) }
  }

  private mutating func string(_ text: String) {
    separate()
    bytes.append(UInt8(ascii: "\""))
    for byte in text.utf8 {
      switch byte {
      case UInt8(ascii: "\""), UInt8(ascii: "\\"):
        bytes.append(UInt8(ascii: "\\"))
        bytes.append(byte)
      case 0..<0x20, 0x7F:
        let digits = String(byte, radix: 16)
        bytes += Array("\\u00\(digits.count < 2 ? "0" : "")\(digits)".utf8)
      default:
        bytes.append(byte)
      }
    }
    bytes.append(UInt8(ascii: "\""))
    needsComma = true
  }
}
