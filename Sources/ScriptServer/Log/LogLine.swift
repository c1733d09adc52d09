// One event as one line, as text for people or as JSON for programs. Pure: gets its time as an argument and writes
// nothing.

import Glibc
import Logging

/// How log lines look (`--log-format`).
package enum LogFormat: String, Sendable, CaseIterable {
  /// `2026-11-21T10:00:00.123Z info  message key=value`
  case text
  /// `{"time":…,"level":…,"message":…,"key":"value"}`
  case json
}

/// The moment of an event on both clocks.
struct LogTime {
  /// Since 1970 in UTC: for people.
  var wallSeconds: Int
  var wallNanoseconds: Int
  /// CLOCK_MONOTONIC: for counting repeats.
  var monotonicNanoseconds: UInt64

  static func now() -> LogTime {
    var wall = timespec()
    var monotonic = timespec()
    unsafe clock_gettime(CLOCK_REALTIME, &wall)
    unsafe clock_gettime(CLOCK_MONOTONIC, &monotonic)
    return LogTime(
      wallSeconds: wall.tv_sec, wallNanoseconds: wall.tv_nsec,
      monotonicNanoseconds: UInt64(monotonic.tv_sec) * 1_000_000_000 + UInt64(monotonic.tv_nsec))
  }

  /// `2026-11-21T10:00:00.123Z` (RFC 3339), always 24 bytes for years of four digits.
  var text: String {
    var seconds = time_t(wallSeconds)
    var parts = unsafe tm()
    unsafe gmtime_r(&seconds, &parts)
    let date = unsafe (year: Int(parts.tm_year) + 1900, month: Int(parts.tm_mon) + 1, day: Int(parts.tm_mday))
    let hour = unsafe (Int(parts.tm_hour), minute: Int(parts.tm_min), second: Int(parts.tm_sec))
    var text = Self.digits(date.year, 4) + "-" + Self.digits(date.month, 2) + "-" + Self.digits(date.day, 2)
    text += "T" + Self.digits(hour.0, 2) + ":" + Self.digits(hour.minute, 2) + ":" + Self.digits(hour.second, 2)
    return text + "." + Self.digits(wallNanoseconds / 1_000_000, 3) + "Z"
  }

  private static func digits(_ number: Int, _ width: Int) -> String {
    let text = String(number)
    return String(repeating: "0", count: max(0, width - text.count)) + text
  }
}

/// A line under construction, without its line feed.
struct LogLine {
  private enum Form {
    case text([UInt8])
    case json(JSONText)
  }

  /// Names that the line itself uses; a script's field of that name gets a `_` before it.
  private static let ownNames: Set<String> = ["time", "level", "message", "repeated", "dropped", "omitted", "error"]

  private var form: Form
  /// Where the event itself begins, after its time.
  private let bodyStart: Int

  init(format: LogFormat, level: Logger.Level, message: String, time: LogTime) {
    switch format {
    case .text:
      var line = Array(time.text.utf8)
      line.append(0x20)
      bodyStart = line.count
      line.append(contentsOf: Self.name(of: level).utf8)
      // `info` and `warn` are padded to the width of `error`.
      line.append(contentsOf: repeatElement(0x20, count: max(1, 6 - Self.name(of: level).utf8.count)))
      EscapedText.append(message, limit: LogLimits.valueBytesMax, backslash: .kept, to: &line)
      form = .text(line)
    case .json:
      var json = JSONText()
      json.beginObject()
      json.member("time", time.text)
      bodyStart = json.bytes.count
      json.member("level", Self.name(of: level))
      json.key("message")
      Self.append(message, to: &json)
      form = .json(json)
    }
  }

  /// Adds the fields in the order of their names.
  mutating func add(_ metadata: Logger.Metadata) {
    for name in metadata.keys.sorted().prefix(LogLimits.fieldsMax) {
      add(Self.ownNames.contains(name) ? "_" + name : name, metadata[name]!)
    }
    if metadata.count > LogLimits.fieldsMax { add("omitted", metadata.count - LogLimits.fieldsMax) }
  }

  /// Adds one of the line's own numbers.
  mutating func add(_ name: String, _ number: Int) { add(name, .stringConvertible(number)) }

  /// Adds one field.
  mutating func add(_ name: String, _ value: Logger.MetadataValue) {
    let name = Self.bounded(name)
    switch form {
    case .text(var line):
      // The one reference, so that the append does not copy.
      form = .text([])
      line.append(0x20)
      Self.appendWord(name, to: &line)
      line.append(UInt8(ascii: "="))
      Self.appendWord(Self.text(of: value), to: &line)
      form = .text(line)
    case .json(var json):
      form = .text([])
      json.key(name)
      Self.append(value, depth: 0, to: &json)
      form = .json(json)
    }
  }

  /// What the event says, without its time: equal events have equal hashes within this process.
  func hash(label: String) -> Int {
    var hasher = Hasher()
    hasher.combine(label)
    switch form {
    case .text(let line): hasher.combine(line[bodyStart...])
    case .json(let json): hasher.combine(json.bytes[bodyStart...])
    }
    return hasher.finalize()
  }

  /// The finished line.
  consuming func finish() -> [UInt8] {
    switch form {
    case .text(let line): return line
    case .json(var json):
      json.endObject()
      return json.bytes
    }
  }

  /// A field's name, cut where it is longer than any name need be.
  private static func bounded(_ name: String) -> String {
    guard name.utf8.count > LogLimits.nameBytesMax else { return name }
    var name = name
    return name.withUTF8 { bytes in
      let bytes = UnsafeRawBufferPointer(bytes)
      let kept = unsafe UTF8Step.cut(bytes, limit: LogLimits.nameBytesMax)
      return unsafe String(decoding: bytes[..<kept], as: UTF8.self) + "…"
    }
  }

  private static func name(of level: Logger.Level) -> String { level == .warning ? "warn" : level.rawValue }

  /// A name or a value, between quotation marks when it would not be one word.
  private static func appendWord(_ word: String, to line: inout [UInt8]) {
    let isWord =
      !word.isEmpty && word.utf8.allSatisfy { $0 > 0x20 && $0 != UInt8(ascii: "\"") && $0 != UInt8(ascii: "=") }
    if isWord {
      EscapedText.append(word, limit: LogLimits.valueBytesMax, backslash: .kept, to: &line)
    } else {
      line.append(UInt8(ascii: "\""))
      EscapedText.append(word, limit: LogLimits.valueBytesMax, backslash: .quoted, to: &line)
      line.append(UInt8(ascii: "\""))
    }
  }

  /// A value as text: a nested one in JSON's notation.
  private static func text(of value: Logger.MetadataValue) -> String {
    switch value {
    case .string(let text): return text
    case .stringConvertible(let value): return value.description
    case .array, .dictionary:
      var json = JSONText()
      append(value, depth: 0, to: &json)
      return json.string
    }
  }

  private static func append(_ value: Logger.MetadataValue, depth: Int, to json: inout JSONText) {
    if depth > LogLimits.depthMax { return json.string("…") }
    switch value {
    case .string(let text): append(text, to: &json)
    case .stringConvertible(let value):
      switch value {
      case let number as Int: json.number(number)
      case let number as Int64: json.number(number)
      case let number as UInt64: json.number(number)
      case let number as Double: json.number(number)
      case let truth as Bool: json.bool(truth)
      default: append(value.description, to: &json)
      }
    case .array(let values):
      json.beginArray()
      for value in values.prefix(LogLimits.fieldsMax) { append(value, depth: depth + 1, to: &json) }
      json.endArray()
    case .dictionary(let values):
      json.beginObject()
      for name in values.keys.sorted().prefix(LogLimits.fieldsMax) {
        json.key(bounded(name))
        append(values[name]!, depth: depth + 1, to: &json)
      }
      json.endObject()
    }
  }

  private static func append(_ text: String, to json: inout JSONText) {
    var text = text
    text.withUTF8 { unsafe json.string(UnsafeRawBufferPointer($0), limit: LogLimits.valueBytesMax) }
  }
}
