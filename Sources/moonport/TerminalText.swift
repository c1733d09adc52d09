// Makes bytes from the network harmless on a terminal. Pure; must never know a terminal.

/// Turns a stream of bytes into text that cannot move the cursor, colour the screen, change the title or answer
/// back: printable UTF-8, line ends and tabs pass, the rest is shown: `^[`, `\x9B`, `<U+202E>`.
package struct TerminalText {
  /// The beginning of a UTF-8 sequence, or a CR that an LF may follow.
  private var held: [UInt8] = []

  package init() {}

  /// What can be shown of all bytes so far and was not yet.
  package mutating func visible(_ bytes: some Sequence<UInt8>) -> [UInt8] {
    var output: [UInt8] = []
    for byte in bytes { take(byte, into: &output) }
    return output
  }

  /// What is held, shown as it is, because nothing follows.
  package mutating func flush() -> [UInt8] {
    var output: [UInt8] = []
    release(into: &output)
    return output
  }

  /// The visible form of a text that the user is typing; a character not yet complete is left out.
  package static func visible(typed: [UInt8]) -> [UInt8] {
    var text = TerminalText()
    return text.visible(typed)
  }

  private mutating func take(_ byte: UInt8, into output: inout [UInt8]) {
    if held == [0x0D], byte == UInt8(ascii: "\n") {
      held = []
    } else if !held.isEmpty, byte & 0xC0 == 0x80, held[0] != 0x0D {
      held.append(byte)
      if held.count == Self.sequenceLength(held[0]) { finishSequence(into: &output) }
      return
    }
    release(into: &output)
    switch byte {
    case UInt8(ascii: "\n"), UInt8(ascii: "\t"), 0x20..<0x7F: output.append(byte)
    case 0x0D, 0xC2...0xF4: held = [byte]
    default: Self.show(byte, into: &output)
    }
  }

  private mutating func finishSequence(into output: inout [UInt8]) {
    guard let scalar = String(validating: held, as: UTF8.self)?.unicodeScalars.first else {
      return release(into: &output)
    }
    if Self.isControl(scalar) {
      output += Array("<U+\(Self.hex(scalar.value, digits: 4))>".utf8)
    } else {
      output += held
    }
    held = []
  }

  private mutating func release(into output: inout [UInt8]) {
    for byte in held { Self.show(byte, into: &output) }
    held = []
  }

  private static func show(_ byte: UInt8, into output: inout [UInt8]) {
    if byte < 0x20 || byte == 0x7F {
      output += [UInt8(ascii: "^"), byte ^ 0x40]
    } else {
      output += Array("\\x\(hex(UInt32(byte), digits: 2))".utf8)
    }
  }

  private static func hex(_ value: UInt32, digits: Int) -> String {
    let text = String(value, radix: 16, uppercase: true)
    return String(repeating: "0", count: max(0, digits - text.count)) + text
  }

  private static func sequenceLength(_ lead: UInt8) -> Int {
    switch lead {
    case ..<0xE0: 2
    case ..<0xF0: 3
    default: 4
    }
  }

  /// C1 controls, which many terminals obey like escape sequences, and the marks that reorder text.
  private static func isControl(_ scalar: Unicode.Scalar) -> Bool {
    (0x80...0x9F).contains(scalar.value) || (0x202A...0x202E).contains(scalar.value)
      || (0x2066...0x2069).contains(scalar.value)
  }
}
