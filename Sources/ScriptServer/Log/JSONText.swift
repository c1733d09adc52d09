// Writes JSON (RFC 8259) into an array of bytes: the log's lines and the status of the server. Reads none.

/// JSON under construction. Commas and colons come by themselves; values of an object follow their `key`.
///
/// Whatever the strings hold, the text is valid JSON on one line: what is not UTF-8 becomes U+FFFD, and control
/// characters, line separators and bidirectional controls become `\u` escapes.
package struct JSONText {
  /// What was written so far.
  package private(set) var bytes: [UInt8] = []
  /// For each open object or array whether it has a member already.
  private var hasMember: [Bool] = []
  private var followsKey = false

  /// Nothing yet.
  package init() {}

  /// The text so far.
  package var string: String { String(decoding: bytes, as: UTF8.self) }

  /// Begins an object; members are added by `key` and a value, or by `member`.
  package mutating func beginObject() { open("{") }
  /// Ends the object begun last.
  package mutating func endObject() { close("}") }
  /// Begins an array; each value is an element.
  package mutating func beginArray() { open("[") }
  /// Ends the array begun last.
  package mutating func endArray() { close("]") }

  /// The name of the next value.
  package mutating func key(_ name: String) {
    string(name)
    bytes.append(UInt8(ascii: ":"))
    followsKey = true
  }

  /// A string.
  package mutating func string(_ value: String) {
    var value = value
    value.withUTF8 { unsafe string(UnsafeRawBufferPointer($0)) }
  }

  /// A string of any bytes. Beyond `limit` bytes it ends with "… (N bytes more)".
  package mutating func string(_ value: UnsafeRawBufferPointer, limit: Int = .max) {
    beginValue()
    bytes.append(UInt8(ascii: "\""))
    let end = unsafe UTF8Step.cut(value, limit: max(0, limit))
    var index = 0
    while index < end {
      let step = unsafe UTF8Step.at(index, in: value)
      unsafe append(step, value[index..<(index + step.byteCount)])
      index += step.byteCount
    }
    if end < value.count { bytes.append(contentsOf: "… (\(value.count - end) bytes more)".utf8) }
    bytes.append(UInt8(ascii: "\""))
  }

  /// An integer, with all its digits.
  package mutating func number(_ value: some BinaryInteger) { literal(String(value)) }

  /// A number; JSON has none for infinity and NaN, which become null.
  package mutating func number(_ value: Double) { literal(value.isFinite ? value.description : "null") }

  /// True or false.
  package mutating func bool(_ value: Bool) { literal(value ? "true" : "false") }

  /// Null.
  package mutating func null() { literal("null") }

  /// A whole member of an object.
  package mutating func member(_ name: String, _ value: String) {
    key(name)
    string(value)
  }

  /// A whole member of an object.
  package mutating func member(_ name: String, _ value: some BinaryInteger) {
    key(name)
    number(value)
  }

  /// A whole member of an object.
  package mutating func member(_ name: String, _ value: Double) {
    key(name)
    number(value)
  }

  /// A whole member of an object.
  package mutating func member(_ name: String, _ value: Bool) {
    key(name)
    bool(value)
  }

  private mutating func beginValue() {
    if followsKey {
      followsKey = false
    } else if let last = hasMember.indices.last {
      if hasMember[last] { bytes.append(UInt8(ascii: ",")) }
      hasMember[last] = true
    }
  }

  private mutating func literal(_ text: String) {
    beginValue()
    bytes.append(contentsOf: text.utf8)
  }

  private mutating func open(_ bracket: Unicode.Scalar) {
    beginValue()
    bytes.append(UInt8(ascii: bracket))
    hasMember.append(false)
  }

  private mutating func close(_ bracket: Unicode.Scalar) {
    precondition(!hasMember.isEmpty && !followsKey, "an end without a beginning, or a key without a value")
    hasMember.removeLast()
    bytes.append(UInt8(ascii: bracket))
  }

  private mutating func append(_ step: UTF8Step, _ source: Slice<UnsafeRawBufferPointer>) {
    guard let scalar = step.scalar else {
      bytes.append(contentsOf: [0xef, 0xbf, 0xbd])
      return
    }
    switch scalar {
    case 0x22, 0x5c:
      bytes.append(0x5c)
      bytes.append(UInt8(scalar))
    case 0x0a: bytes.append(contentsOf: "\\n".utf8)
    case 0x0d: bytes.append(contentsOf: "\\r".utf8)
    case 0x09: bytes.append(contentsOf: "\\t".utf8)
    case _ where UTF8Step.isDangerous(scalar):
      bytes.append(contentsOf: "\\u".utf8)
      for shift in stride(from: UInt32(12), through: 0, by: -4) {
        bytes.append(EscapedText.hexDigit(UInt8(truncatingIfNeeded: scalar >> shift & 15)))
      }
    default: unsafe bytes.append(contentsOf: source)
    }
  }
}
