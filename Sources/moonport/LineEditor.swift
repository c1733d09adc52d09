// One line being typed: bytes from the terminal in, edits and finished lines out. A pure state machine; must never
// know a terminal, a screen or a socket.

/// The line under the user's fingers. Keys: Backspace, Ctrl-U (all), Ctrl-W (a word), Enter, Ctrl-D (end, or send the
/// line without its end). Ctrl-C, Ctrl-Z and Ctrl-\ stay with the terminal, which makes signals of them.
package struct LineEditor {
  /// What one byte did.
  package enum Action: Equatable {
    /// Nothing that shows.
    case none
    /// `typed` is another text now.
    case changed
    /// Enter: these bytes, the line end included, are to be sent.
    case line([UInt8])
    /// Ctrl-D behind a text: these bytes are to be sent as they are.
    case partial([UInt8])
    /// Ctrl-D on an empty line: the user has nothing more to say.
    case endOfInput
    /// The line is as long as a line may be; the byte was dropped.
    case full
  }

  /// The part of an escape sequence (an arrow key, a function key) that was read; such keys mean nothing here.
  private enum Escape {
    case none
    case begun
    case control
    case single
  }

  /// Longest line in bytes: what the server's line codec takes by default, less the line end.
  package static let lineBytesMax = 65_536

  /// The line so far, exactly as typed.
  package private(set) var typed: [UInt8] = []
  private var escape = Escape.none

  package init() {}

  /// Takes one byte from the terminal.
  package mutating func feed(_ byte: UInt8) -> Action {
    if isPartOfEscape(byte) { return .none }
    switch byte {
    case UInt8(ascii: "\n"), UInt8(ascii: "\r"): return .line(take() + [UInt8(ascii: "\n")])
    case 0x04: return typed.isEmpty ? .endOfInput : .partial(take())
    case 0x08, 0x7F: return erase(lastCharacterCount)
    case 0x15: return erase(typed.count)
    case 0x17: return erase(lastWordCount)
    case UInt8(ascii: "\t"), 0x20...: return append(byte)
    default: return .none
    }
  }

  private mutating func append(_ byte: UInt8) -> Action {
    guard typed.count < Self.lineBytesMax else { return .full }
    typed.append(byte)
    return .changed
  }

  private mutating func erase(_ count: Int) -> Action {
    guard count > 0 else { return .none }
    typed.removeLast(count)
    return .changed
  }

  private mutating func take() -> [UInt8] {
    defer { typed = [] }
    return typed
  }

  /// Whether `byte` belongs to an escape sequence: ESC [ parameters final, or ESC O final (ECMA-48, 5.4).
  private mutating func isPartOfEscape(_ byte: UInt8) -> Bool {
    switch (escape, byte) {
    case (_, 0x1B): escape = .begun
    case (.begun, UInt8(ascii: "[")): escape = .control
    case (.begun, UInt8(ascii: "O")): escape = .single
    case (.control, 0x20...0x3F): break
    case (.control, 0x40...0x7E), (.single, 0x20...0x7E): escape = .none
    default:
      // Not a sequence after all: a lone Escape means nothing, and the byte stands for itself.
      escape = .none
      return false
    }
    return true
  }

  /// The bytes of the last character: those of one UTF-8 sequence, or a single byte that is part of none.
  private var lastCharacterCount: Int {
    guard let last = typed.last else { return 0 }
    if last < 0x80 { return 1 }
    for count in 2...4 where count <= typed.count {
      let lead = typed[typed.count - count]
      if lead & 0xC0 == 0x80 { continue }
      return String(validating: typed.suffix(count), as: UTF8.self)?.unicodeScalars.count == 1 ? count : 1
    }
    return 1
  }

  /// The bytes of the last word and the blanks behind it.
  private var lastWordCount: Int {
    var start = typed.count
    while start > 0, Self.isBlank(typed[start - 1]) { start -= 1 }
    while start > 0, !Self.isBlank(typed[start - 1]) { start -= 1 }
    return typed.count - start
  }

  private static func isBlank(_ byte: UInt8) -> Bool {
    byte == UInt8(ascii: " ") || byte == UInt8(ascii: "\t")
  }
}
