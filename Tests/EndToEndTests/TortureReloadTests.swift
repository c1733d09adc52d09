// Storms of saves: a script that is written a thousand times a second, in each of the ways in which programs save. No half file is
// ever run, clients are served all the time, and the last content is what runs in the end.
//
// Must never know: how the server learns of a change.

import Glibc
import TestSupport
import Testing

@Suite(.serialized) struct TortureReloadTests {
  /// Between two saves: a thousand a second, less what a save takes.
  private static let pauseMicroseconds: UInt32 = 1_000
  private static let saves = isLongRun ? 10_000 : 1_500

  /// A script that tells its version. Half of it, or a mixture of two, does not load: its number is in every line.
  private static func script(_ version: Int) -> String {
    """
    local moonport = require "moonport"
    moonport.listen { address = "127.0.0.1:0", codec = "line" }
    local seen = 0
    local function same(version) assert(version == \(version), "a mixture of files") seen = seen + 1 end
    \(String(repeating: "same(\(version)) -- \(String(repeating: "-", count: 50))\n", count: 200))
    assert(seen == 200)
    return { on_message = function(conn, text) conn:send("\(version)") end }

    """
  }

  /// A way to save, and what has to be there before the server starts.
  enum Saving: String, CaseIterable, CustomTestStringConvertible {
    case rename = "rename"
    case truncate = "truncate and write slowly"
    case link = "switch of a symbolic link"
    case create = "delete and create"

    var testDescription: String { rawValue }

    /// Where the server finds its script.
    var scriptName: String { self == .link ? "current/main.lua" : "main.lua" }

    func prepare(_ folder: TemporaryFolder, _ text: String) throws {
      guard self == .link else { return _ = try folder.write("main.lua", text) }
      try folder.write("releases/1/main.lua", text)
      try folder.link("current", to: "releases/1")
    }

    func save(_ folder: TemporaryFolder, _ text: String, number: Int) throws {
      switch self {
      case .rename: try folder.replace("main.lua", text)
      case .truncate: try writeInTwo(folder.file("main.lua"), text, O_TRUNC)
      case .link:
        // A release that is live is not written to.
        try folder.write("releases/\(number)/main.lua", text)
        try folder.link("current", to: "releases/\(number)")
        if number > 10 { try folder.remove("releases/\(number - 10)/main.lua") }
      case .create:
        try folder.remove("main.lua")
        try writeInTwo(folder.file("main.lua"), text, O_CREAT | O_EXCL)
      }
    }

    /// Writes half, lets others run, and writes the rest.
    private func writeInTwo(_ path: String, _ text: String, _ flags: Int32) throws {
      let descriptor = open(path, O_WRONLY | O_CLOEXEC | flags, 0o644)
      guard descriptor >= 0 else { throw TestFailure.call("open \(path)") }
      defer { close(descriptor) }
      let bytes = Array(text.utf8)
      for part in [bytes[..<(bytes.count / 2)], bytes[(bytes.count / 2)...]] {
        guard part.withUnsafeBytes({ write(descriptor, $0.baseAddress, $0.count) }) == part.count else {
          throw TestFailure.call("write \(path)")
        }
        usleep(300)
      }
    }
  }

  @Test(arguments: Saving.allCases)
  func `a thousand saves a second end with the last content live, and no half file was ever run`(saving: Saving) throws
  {
    let folder = try TemporaryFolder()
    try saving.prepare(folder, TortureReloadTests.script(1))
    let server = try MoonportProcess(file: folder.file(saving.scriptName), folder: folder) {
      $0.workers = 2
      $0.arguments = ["--watch"]
    }
    let isOver = Flag()
    let witness = TestThread {
      let client = try server.connect()
      var newest = 0
      while !isOver.isRaised {
        let version = Int(try client.ask("x")) ?? -1
        if version < newest { throw TestFailure("version \(version) answered after version \(newest)") }
        newest = version
        usleep(1_000)
      }
    }
    let begin = Deadline.uptime
    let last = TortureReloadTests.saves + 1
    for number in 2...last {
      try saving.save(folder, TortureReloadTests.script(number), number: number)
      usleep(TortureReloadTests.pauseMicroseconds / 2)
    }
    let seconds = Deadline.uptime - begin
    let client = try server.connect()
    try eventually("the last content is live") { try client.ask("x") == "\(last)" }
    isOver.raise()
    try witness.join()
    // A storm may leave no moment to read a file as a whole: then the reload waits for a later one.
    for line in server.errors.split(separator: "\n") where contains(String(line), "reload failed") {
      #expect(contains(String(line), "kept changing while it was read"), "\(line)")
    }
    let reloads = try (server.status()["generation"].integer ?? 0) - 1
    let rate = Int(Double(TortureReloadTests.saves) / seconds)
    print(
      "torture: saves by \(saving.rawValue): \(TortureReloadTests.saves) at \(rate)/s, \(reloads) reloads, the last is live,"
        + " none was half")
    try server.stop()
  }
}
