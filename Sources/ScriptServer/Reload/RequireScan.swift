// Finds the modules that a Lua source names in `require "name"` and `moonport.offload("name", …)`, so that they can be read together
// with the script.
// It reads tokens and never runs anything; a name that is put together at run time is none of its business.

/// A scanner over the bytes of one Lua source (Lua 5.4 manual, section 3.1, for comments, strings and names).
struct RequireScan {
  private let source: [UInt8]
  private var position = 0

  /// The words that a module's name follows.
  private enum Word { case require, offload, other }

  private enum Token: Equatable {
    case name(Word)
    /// A string literal; nil when it has escapes, which no module's name needs.
    case string(String?)
    case symbol(UInt8)
  }

  /// The names in `require "x"`, `require("x")`, `pcall(require, "x")`, and the same with `offload`, each once, in the order
  /// they appear.
  ///
  /// A name found too many only costs reading one file; one that is missed is read when the script asks for it.
  static func names(in source: [UInt8]) -> [String] {
    var scan = RequireScan(source: source)
    return scan.collect()
  }

  private init(source: [UInt8]) { self.source = source }

  private mutating func collect() -> [String] {
    var names: [String] = []
    var seen: Set<String> = []
    var previous = Token.symbol(0)
    var token = next()
    while let current = token {
      token = next()
      // `loader.require "x"` and `loader:require "x"` are other functions.
      let isMember = previous == .symbol(UInt8(ascii: ".")) || previous == .symbol(UInt8(ascii: ":"))
      previous = current
      guard case .name(let word) = current, word == .offload || word == .require && !isMember,
        let name = argument(&token, of: word)
      else { continue }
      if seen.insert(name).inserted { names.append(name) }
    }
    return names
  }

  /// The literal after the word; `token` moves on past what was looked at.
  private mutating func argument(_ token: inout Token?, of word: Word) -> String? {
    switch token {
    case .string(let name):
      return name
    case .symbol(UInt8(ascii: ",")):
      token = next()
      guard case .string(let name) = token else { return nil }
      return name
    case .symbol(UInt8(ascii: "(")):
      token = next()
      guard case .string(let name) = token else { return nil }
      token = next()
      // `require("a" .. b)` names no module yet.
      if token == .symbol(UInt8(ascii: ",")), word == .offload { return name }
      return token == .symbol(UInt8(ascii: ")")) ? name : nil
    default:
      return nil
    }
  }

  private func byte(at index: Int) -> UInt8? { index < source.count ? source[index] : nil }

  private mutating func next() -> Token? {
    while let byte = byte(at: position) {
      switch byte {
      case UInt8(ascii: " "), 9...13:
        position += 1
      case UInt8(ascii: "-") where self.byte(at: position + 1) == byte:
        skipComment()
      case UInt8(ascii: "\""), UInt8(ascii: "'"):
        return .string(quoted(by: byte))
      case UInt8(ascii: "["):
        if let level = longBracketLevel(at: position) { return .string(longString(level: level)) }
        position += 1
        return .symbol(byte)
      case _ where Self.isNameByte(byte):
        return word()
      default:
        position += 1
        return .symbol(byte)
      }
    }
    return nil
  }

  private static func isNameByte(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"): true
    case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"): true
    default: false
    }
  }

  /// A name, a keyword or a number: all that matters is whether it is one of two words.
  private mutating func word() -> Token {
    let start = position
    while let byte = byte(at: position), Self.isNameByte(byte) { position += 1 }
    let word = source[start..<position]
    if word.elementsEqual("require".utf8) { return .name(.require) }
    return .name(word.elementsEqual("offload".utf8) ? .offload : .other)
  }

  private mutating func skipComment() {
    position += 2
    if let level = longBracketLevel(at: position) {
      _ = longString(level: level)
      return
    }
    while let byte = byte(at: position), byte != UInt8(ascii: "\n") { position += 1 }
  }

  private mutating func quoted(by quote: UInt8) -> String? {
    position += 1
    let start = position
    var hasEscape = false
    while let byte = byte(at: position) {
      position += 1
      if byte == quote { return hasEscape ? nil : Self.text(source[start..<(position - 1)]) }
      // An unfinished string ends with its line; the compiler will say so, the scan goes on.
      if byte == UInt8(ascii: "\n") { return nil }
      if byte == UInt8(ascii: "\\") {
        hasEscape = true
        position += 1
      }
    }
    return nil
  }

  /// The number of `=` when a long bracket opens at `index`, as in `[==[`.
  private func longBracketLevel(at index: Int) -> Int? {
    guard byte(at: index) == UInt8(ascii: "[") else { return nil }
    var end = index + 1
    while byte(at: end) == UInt8(ascii: "=") { end += 1 }
    return byte(at: end) == UInt8(ascii: "[") ? end - index - 1 : nil
  }

  private mutating func longString(level: Int) -> String? {
    position += level + 2
    let start = position
    while let byte = byte(at: position) {
      if byte == UInt8(ascii: "]"), closesLongBracket(level: level) {
        let content = source[start..<position]
        position += level + 2
        return Self.text(content.first == UInt8(ascii: "\n") ? content.dropFirst() : content)
      }
      position += 1
    }
    return nil
  }

  private func closesLongBracket(level: Int) -> Bool {
    for offset in 0..<level where byte(at: position + 1 + offset) != UInt8(ascii: "=") { return false }
    return byte(at: position + 1 + level) == UInt8(ascii: "]")
  }

  private static func text(_ bytes: ArraySlice<UInt8>) -> String? { String(validating: bytes, as: UTF8.self) }
}
