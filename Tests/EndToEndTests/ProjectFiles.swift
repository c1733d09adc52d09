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

  /// The fenced blocks of a page in `language`, each with the number of its first line.
  static func blocks(_ language: String, in name: String) throws -> [(line: Int, text: String)] {
    var found: [(line: Int, text: String)] = []
    var isInside = false
    var isWanted = false
    for (index, line) in try text(name).components(separatedBy: "\n").enumerated() {
      if line.hasPrefix("```") {
        isInside.toggle()
        isWanted = isInside && line == "```\(language)"
        if isWanted { found.append((index + 2, "")) }
      } else if isWanted {
        found[found.count - 1].text += line + "\n"
      }
    }
    return found
  }
}
