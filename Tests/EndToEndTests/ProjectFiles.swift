// The project's own files as tests use them: examples to run, pages whose code is run.
//
// Must never know: the server.

import Foundation
import TestSupport

/// Files of this repository, by their path in it.
enum ProjectFiles {
  /// The repository's folder.
  static let root = String(#filePath.dropLast("/Tests/EndToEndTests/ProjectFiles.swift".count))

  static func path(_ name: String) -> String { "\(root)/\(name)" }

  static func text(_ name: String) throws -> String { try String(contentsOfFile: path(name), encoding: .utf8) }

  /// The fenced blocks of a page, each with its language and the number of its first line.
  static func blocks(in name: String) throws -> [(language: String, line: Int, text: String)] {
    var found: [(language: String, line: Int, text: String)] = []
    var isInside = false
    for (index, line) in try text(name).components(separatedBy: "\n").enumerated() {
      if line.hasPrefix("```") {
        isInside.toggle()
        if isInside { found.append((String(line.dropFirst(3)), index + 2, "")) }
      } else if isInside {
        found[found.count - 1].text += line + "\n"
      }
    }
    return found
  }

  /// Those of them in `language`.
  static func blocks(_ language: String, in name: String) throws -> [(line: Int, text: String)] {
    try blocks(in: name).filter { $0.language == language }.map { ($0.line, $0.text) }
  }
}
