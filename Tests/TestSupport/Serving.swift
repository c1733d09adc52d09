// Servers for short handler scripts, and the few exchanges that most end-to-end tests begin with.
//
// Must never know: what is being proved.

extension MoonportProcess {
  /// A server for the handlers in `body`, functions of the table `h`, on one listener with the options given.
  ///
  /// The script is `main.lua`; `moonport` and `h` are its first locals, and the body begins in line 5.
  package static func serving(
    _ body: String, _ options: String = "codec = \"line\"", address: String = anyPort, workers: Int = 1,
    folder: TemporaryFolder? = nil, _ configure: (inout Options) -> Void = { _ in }
  ) throws -> MoonportProcess {
    let script = """
      local moonport = require "moonport"
      local print, sleep = print, moonport.sleep
      moonport.listen { address = "\(address)", \(options) }
      local h = {}
      \(body)
      return h
      """
    return try MoonportProcess(script: script, folder: folder) {
      $0.workers = workers
      configure(&$0)
    }
  }

  /// How often `text` stands in the standard output until now.
  package func outputCount(of text: String) -> Int { occurrences(of: text, in: output) }
}

/// How often `part` stands in `text`, not overlapping.
package func occurrences(of part: String, in text: String) -> Int {
  let text = Array(text.utf8)
  let part = Array(part.utf8)
  var count = 0
  var start = 0
  while start + part.count <= text.count {
    if text[start..<start + part.count].elementsEqual(part) {
      count += 1
      start += part.count
    } else {
      start += 1
    }
  }
  return count
}

extension TestClient {
  /// Sends a line and returns the next line that comes.
  package func ask(_ line: String) throws -> String {
    try send(line + "\n")
    return try receiveLine()
  }

  /// The next `count` lines.
  package func receiveLines(_ count: Int) throws -> [String] { try (0..<count).map { _ in try receiveLine() } }
}
