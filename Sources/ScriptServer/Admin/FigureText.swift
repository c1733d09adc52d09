// Figures as a person reads them: grouped digits, sizes, spans of time, columns. Pure text; must never know what the
// figures mean.

/// Numbers and tables as text.
package enum FigureText {
  /// `1,234,567`.
  package static func count(_ value: Int64) -> String {
    let digits = Array(String(value.magnitude))
    var text = value < 0 ? "-" : ""
    for (index, digit) in digits.enumerated() {
      if index > 0, (digits.count - index) % 3 == 0 { text.append(",") }
      text.append(digit)
    }
    return text
  }

  /// At most nine characters for a narrow column: `1,234,567` while it fits, then `12.3 M`, `4.5 G`, `6.7 T`.
  package static func shortCount(_ value: Int64) -> String {
    if value.magnitude < 10_000_000 { return count(value) }
    return scaled(Double(value), base: 1000, units: ["", " k", " M", " G", " T", " P", " E"])
  }

  /// A size in binary units: `0 B`, `1.5 KiB`, `12.0 MiB`.
  package static func size(_ bytes: Int64) -> String {
    if bytes.magnitude < 1024 { return "\(bytes) B" }
    return scaled(Double(bytes), base: 1024, units: ["", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB"])
  }

  /// A span of time, in two units: `0.25 s`, `42 s`, `3 min 05 s`, `2 h 07 min`, `12 d 03 h`.
  package static func span(_ seconds: Double) -> String {
    guard seconds.isFinite, seconds >= 0 else { return "-" }
    if seconds < 1 { return "\(decimal(seconds, places: 2)) s" }
    let whole = Int64(min(seconds, 1e15))
    if whole < 60 { return "\(whole) s" }
    if whole < 3600 { return "\(whole / 60) min \(twoDigits(whole % 60)) s" }
    if whole < 86400 { return "\(whole / 3600) h \(twoDigits(whole % 3600 / 60)) min" }
    return "\(count(whole / 86400)) d \(twoDigits(whole % 86400 / 3600)) h"
  }

  /// A short span in the unit that suits it: `0.3 ms`, `12 ms`, `1.2 s`.
  package static func shortSpan(_ seconds: Double) -> String {
    guard seconds.isFinite, seconds >= 0 else { return "-" }
    if seconds < 0.01 { return "\(decimal(seconds * 1000, places: 1)) ms" }
    if seconds < 1 { return "\(decimal(seconds * 1000, places: 0)) ms" }
    if seconds < 60 { return "\(decimal(seconds, places: 1)) s" }
    return span(seconds)
  }

  /// A share of 1 as whole percents, rounded: `34 %`.
  package static func percent(_ share: Double) -> String {
    guard share.isFinite else { return "-" }
    return "\(Int64((min(max(share, 0), 1) * 100).rounded())) %"
  }

  /// A number with `places` digits after its point, rounded; `-` for what is not a number below 10^15.
  package static func decimal(_ value: Double, places: Int) -> String {
    guard value.magnitude < 1e15 else { return "-" }
    var factor: Double = 1
    for _ in 0..<places { factor *= 10 }
    let units = Int64((value.magnitude * factor).rounded())
    let sign = value < 0 && units > 0 ? "-" : ""
    guard places > 0 else { return sign + String(units) }
    let fraction = String(units % Int64(factor))
    return sign + String(units / Int64(factor)) + "." + String(repeating: "0", count: places - fraction.count)
      + fraction
  }

  /// Text from outside on one line of a terminal: control characters, which could move the cursor or colour the
  /// screen, become `?`.
  package static func harmless(_ text: String) -> String {
    var scalars = String.UnicodeScalarView()
    for scalar in text.unicodeScalars {
      scalars.append(isControl(scalar) ? "?" : scalar)
    }
    return String(scalars)
  }

  private static func isControl(_ scalar: Unicode.Scalar) -> Bool {
    scalar.value < 0x20 || (0x7F...0x9F).contains(scalar.value) || (0x2028...0x202E).contains(scalar.value)
      || (0x2066...0x2069).contains(scalar.value)
  }

  private static func scaled(_ value: Double, base: Double, units: [String]) -> String {
    var value = value
    var unit = 0
    // 99.95 and not 100 in the last step keeps rounding from showing `1024.0 KiB`.
    while value.magnitude >= base - 0.05, unit < units.count - 1 {
      value /= base
      unit += 1
    }
    return decimal(value, places: 1) + units[unit]
  }

  private static func twoDigits(_ value: Int64) -> String {
    value < 10 ? "0\(value)" : String(value)
  }
}

/// Rows of text in columns that line up, indented by two spaces and divided by two.
struct TextTable {
  enum Alignment {
    case left
    case right
  }

  private let alignments: [Alignment]
  private var rows: [[String]]

  init(_ columns: [(title: String, alignment: Alignment)]) {
    alignments = columns.map(\.alignment)
    rows = [columns.map(\.title)]
  }

  mutating func append(_ row: [String]) {
    precondition(row.count == alignments.count, "a row has one cell per column")
    rows.append(row)
  }

  /// The table, a line end after each row and no blanks at a row's end.
  var text: String {
    let widths = alignments.indices.map { column in rows.map { $0[column].count }.max() ?? 0 }
    var text = ""
    for row in rows {
      var line = ""
      for (column, cell) in row.enumerated() {
        let padding = String(repeating: " ", count: widths[column] - cell.count)
        line += "  " + (alignments[column] == .right ? padding + cell : cell + padding)
      }
      while line.last == " " { line.removeLast() }
      text += line + "\n"
    }
    return text
  }
}
