// The examples of a page as a test runs them: the blocks of Lua, what each prints, and the session that follows it.
//
// A block of Lua is
//   - a whole script, when it begins with `local moonport`;
//   - a file beside the next block's script, when it begins with a comment that is a file's name: `-- primes.lua`;
//   - a part of a script, when it has the word `handlers`: `moonport`, a listener for lines on 127.0.0.1:6000 and the table
//     `handlers` are before it, and `return handlers` is behind it;
//   - else statements, which run in on_start of such a script, so that they may wait.
// `--> text` says what is printed: these lines, in the order in which they stand in the block, and no others.
//
// A block of ```session behind it shows clients of the script, which all connect before the first line:
//   > hello            a client sends this line (with the delimiter "\n")
//   < you said hello   and gets this one
//   ada> hello         a client with a name of its own
//   bob@2> hello       one that is connected to the script's second listener
//   >> \0\2hi          sends bytes: \n, \r, \\, \xHH and \DDD are as in Lua
//   << \0\2hi          gets exactly these bytes
//   > (leaves)         closes its connection; (ends) closes only its sending side
//   < (closed)         the server ended the connection; (reset) likewise
//   $ moonport reload  the operator's command succeeds
//   log: warn  slow    the server writes this line to its log (without the time)
// In what is expected, … stands for anything.
//
// Must never know: the server.

import Foundation
import Testing

/// One block of Lua on a page.
struct PageExample: Sendable, CustomTestStringConvertible {
  let page: String
  /// The block's first line on the page.
  let line: Int
  let text: String
  /// Files that stand before it, by name.
  var files: [String: String] = [:]
  /// The lines of the session behind it.
  var session: [String] = []

  var testDescription: String { "\(page):\(line)" }

  /// What the block says that it prints.
  var printed: [String] {
    text.components(separatedBy: "\n").compactMap { line in
      line.range(of: "--> ").map { String(line[$0.upperBound...]) }
    }
  }

  /// The block as a script, which listens on the loopback address `host` in place of 127.0.0.1, and in `folder` in place of /tmp.
  func script(host: String, folder: String) -> String {
    let whole: String
    if text.hasPrefix("local moonport") {
      whole = text
    } else if text.contains("handlers") {
      whole = PageExample.head + text + "return handlers\n"
    } else {
      whole = PageExample.head + "function handlers.on_start()\n" + text + "end\nreturn handlers\n"
    }
    return whole.replacingOccurrences(of: "127.0.0.1", with: host)
      .replacingOccurrences(of: "\":6", with: "\"\(host):6")
      .replacingOccurrences(of: "unix:/tmp/", with: "unix:\(folder)/")
  }

  private static let head = """
    local moonport = require "moonport"
    moonport.listen { address = "127.0.0.1:6000", codec = "line" }
    local handlers = {}

    """

  /// The examples of a page, in their order.
  static func all(of page: String) throws -> [PageExample] {
    var examples: [PageExample] = []
    var files: [String: String] = [:]
    for block in try ProjectFiles.blocks(in: page) {
      if block.language == "session" {
        if !examples.isEmpty {
          examples[examples.count - 1].session += block.text.components(separatedBy: "\n").dropLast()
        }
      } else if block.language == "lua" {
        if let name = fileName(block.text) {
          files[name] = block.text
        } else {
          examples.append(PageExample(page: page, line: block.line, text: block.text, files: files))
          files = [:]
        }
      }
    }
    return examples
  }

  /// The name in a first line like `-- primes.lua`.
  private static func fileName(_ text: String) -> String? {
    let first = text.components(separatedBy: "\n")[0]
    guard first.hasPrefix("-- "), first.hasSuffix(".lua"), !first.dropFirst(3).contains(" ") else { return nil }
    return String(first.dropFirst(3))
  }

  /// Whether `text` is what `pattern` says, in which … stands for anything.
  static func matches(_ text: String, _ pattern: String) -> Bool {
    let parts = pattern.components(separatedBy: "…")
    guard parts.count > 1 else { return text == pattern }
    guard text.hasPrefix(parts[0]), text.hasSuffix(parts[parts.count - 1]) else { return false }
    var rest = text.dropFirst(parts[0].count)
    for part in parts.dropFirst().dropLast() where !part.isEmpty {
      guard let range = rest.range(of: part) else { return false }
      rest = rest[range.upperBound...]
    }
    return rest.count >= parts[parts.count - 1].count
  }

  /// The bytes that a session writes with Lua's escapes.
  static func bytes(_ text: String) -> [UInt8] {
    var bytes: [UInt8] = []
    var rest = Substring(text)
    while let character = rest.popFirst() {
      guard character == "\\", let next = rest.first else {
        bytes += Array(String(character).utf8)
        continue
      }
      if next.isNumber {
        let digits = rest.prefix(while: \.isNumber).prefix(3)
        bytes.append(UInt8(digits) ?? 0)
        rest.removeFirst(digits.count)
      } else if next == "x" {
        bytes.append(UInt8(rest.dropFirst().prefix(2), radix: 16) ?? 0)
        rest.removeFirst(3)
      } else {
        bytes.append(next == "n" ? 10 : next == "r" ? 13 : next.asciiValue ?? 0)
        rest.removeFirst()
      }
    }
    return bytes
  }
}
