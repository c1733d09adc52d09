// What is on the terminal's last lines: the server's text, and behind it the line being typed. Computes the bytes that
// change it; pure, and must never know a descriptor.

/// Keeps what is typed below what arrives. The typed text follows the server's last, perhaps unfinished line (a
/// prompt); when more arrives, the typed text is cleared, the new text goes on where the server's had ended, and the
/// typed text follows again.
///
/// Only text of `TerminalText` may be shown here: everything that moves the cursor is counted.
package struct TerminalScreen {
  private struct Position {
    var row = 0
    var column = 0
  }

  /// A column before the terminal's first tab stop multiple.
  private static let tabColumns = 8

  /// The column in which the server's text ends and the typed text begins.
  private var startColumn = 0
  /// Whether the server's text filled its line to the end, and the cursor was moved on to the next: then a line end
  /// from the server has already been shown.
  private var hasWrapped = false
  /// The typed text as it is on the screen.
  private var typed: [UInt8] = []

  package init() {}

  /// The bytes that show `visible` from the server. `columns` is the terminal's width now.
  package mutating func arrived(_ visible: [UInt8], columns: Int) -> [UInt8] {
    guard !visible.isEmpty else { return [] }
    var output = clearing(columns: columns)
    let text = hasWrapped && visible.first == UInt8(ascii: "\n") ? visible[1...] : visible[...]
    hasWrapped = false
    output += text
    startColumn = Self.end(of: text, from: Position(column: startColumn), columns: columns).column
    if startColumn >= columns {
      // The cursor hangs behind the last column; a blank and a return put it where it can be counted from.
      output += Array(" \r".utf8)
      startColumn = 0
      hasWrapped = true
    }
    return output + typed
  }

  /// The bytes that show `visible` as the typed text instead of the one before.
  package mutating func edited(_ visible: [UInt8], columns: Int) -> [UInt8] {
    defer { typed = visible }
    if visible.starts(with: typed) { return Array(visible[typed.count...]) }
    return clearing(columns: columns) + visible
  }

  /// The bytes that follow when the typed text was sent: it stays, and the next begins on a new line.
  package mutating func entered() -> [UInt8] {
    typed = []
    startColumn = 0
    hasWrapped = false
    return [UInt8(ascii: "\n")]
  }

  /// The typed text was sent without a line end: it stays, and what follows goes on behind it.
  package mutating func sentPartially(columns: Int) {
    let end = Self.end(of: typed[...], from: Position(column: startColumn), columns: columns)
    startColumn = end.column
    typed = []
  }

  /// The bytes that show the typed text again on a new line, after something else used the screen.
  package mutating func resumed() -> [UInt8] {
    startColumn = 0
    hasWrapped = false
    return typed
  }

  /// The bytes that leave the cursor at the beginning of a line.
  package mutating func left() -> [UInt8] {
    startColumn == 0 && typed.isEmpty ? [] : entered()
  }

  /// Moves the cursor to where the typed text begins and clears from there (ECMA-48: CUU, CUF, ED).
  private func clearing(columns: Int) -> [UInt8] {
    guard !typed.isEmpty else { return [] }
    let end = Self.end(of: typed[...], from: Position(column: startColumn), columns: columns)
    var output = end.row > 0 ? "\u{1B}[\(end.row)A\r" : "\r"
    if startColumn > 0 { output += "\u{1B}[\(startColumn)C" }
    return Array((output + "\u{1B}[J").utf8)
  }

  /// Where the cursor is after `text`. In column `columns` it hangs behind the last one, as terminals do.
  private static func end(of text: ArraySlice<UInt8>, from start: Position, columns: Int) -> Position {
    var position = start
    for scalar in String(decoding: text, as: UTF8.self).unicodeScalars {
      switch scalar {
      case "\n":
        position.row += 1
        position.column = 0
      case "\t":
        position.column = min((position.column / tabColumns + 1) * tabColumns, max(columns - 1, position.column))
      default:
        let width = cells(of: scalar)
        if position.column + width > columns {
          position.row += 1
          position.column = 0
        }
        position.column += width
      }
    }
    return position
  }

  /// How many cells a character takes: none for marks that combine, two for East Asian wide ones and emoji
  /// (Unicode Standard Annex #11, the blocks that are wide as a whole).
  package static func cells(of scalar: Unicode.Scalar) -> Int {
    if scalar.value < 0x300 { return 1 }
    switch scalar.properties.generalCategory {
    case .nonspacingMark, .enclosingMark, .format: return 0
    default: break
    }
    switch scalar.value {
    case 0x1100...0x115F, 0x2E80...0x303E, 0x3041...0xA4CF, 0xA960...0xA97F, 0xAC00...0xD7A3, 0xF900...0xFAFF,
      0xFE30...0xFE6F, 0xFF00...0xFF60, 0xFFE0...0xFFE6, 0x1F300...0x1F64F, 0x1F680...0x1F6FF, 0x1F900...0x1F9FF,
      0x20000...0x3FFFD:
      return 2
    default: return 1
    }
  }
}
