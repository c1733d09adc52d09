// The triggers of a reload besides the command: SIGHUP, and --watch for every way in which files change.

import Glibc
import TestSupport
import Testing

@Suite struct WatchTests {
  /// Waits until a new client is answered by this version.
  private func waitForVersion(_ version: String, _ server: MoonportProcess) throws {
    let client = try server.connect()
    try eventually("version \(version) answers") { try client.ask("x") == "\(version) x" }
  }

  @Test("SIGHUP reloads, and a script that cannot be loaded is logged")
  func hangUp() throws {
    let server = try MoonportProcess(serving: script("1"))
    let client = try server.connect()
    #expect(try client.ask("x") == "1 x")
    try server.replaceScript(script("2"))
    server.sendSignal(SIGHUP)
    try waitForVersion("2", server)
    #expect(try client.ask("x") == "2 x")
    try server.replaceScript(script("3", "error('broken')"))
    server.sendSignal(SIGHUP)
    try server.waitForErrors(containing: "main.lua:4: broken")
    #expect(try client.ask("x") == "2 x")
  }

  @Test("--watch reloads after an editor's rename, again and again")
  func rename() throws {
    let server = try MoonportProcess(serving: script("1"), ["--watch"])
    let client = try server.connect()
    #expect(try client.ask("x") == "1 x")
    for version in 2...4 {
      try server.replaceScript(script("\(version)"))
      try waitForVersion("\(version)", server)
    }
    #expect(try client.ask("x") == "4 x")
    #expect(try server.status()["watch"].boolean == true)
  }

  @Test("--watch waits for the end of a slow write and never loads half a file")
  func slowWrite() throws {
    let server = try MoonportProcess(serving: script("1"), ["--watch"])
    let client = try server.connect()
    let text = Array(script("2").utf8)
    let descriptor = open(server.scriptPath, O_WRONLY | O_TRUNC | O_CLOEXEC)
    try #require(descriptor >= 0)
    for start in stride(from: 0, to: text.count, by: 40) {
      let piece = Array(text[start..<min(start + 40, text.count)])
      #expect(write(descriptor, piece, piece.count) == piece.count)
      // A writer that pauses longer than the watcher's quiet time.
      usleep(80_000)
      #expect(try client.ask("x") == "1 x")
    }
    close(descriptor)
    try waitForVersion("2", server)
    #expect(!contains(server.errors, "reload failed"))
    #expect(try server.status()["generation"].integer == 2)
  }

  @Test("--watch follows a symbolic link that is switched to another folder")
  func symbolicLink() throws {
    let folder = try TemporaryFolder()
    for version in 1...2 {
      try folder.write("releases/\(version)/main.lua", script("\(version)", "local library = require 'library'"))
      try folder.write("releases/\(version)/library.lua", "return \(version)\n")
    }
    try folder.link("current", to: "releases/1")
    let server = try MoonportProcess(file: folder.file("current/main.lua"), folder: folder) {
      $0.arguments = ["--watch"]
    }
    let client = try server.connect()
    #expect(try client.ask("x") == "1 x")
    try folder.link("current", to: "releases/2")
    try waitForVersion("2", server)
    #expect(try client.ask("x") == "2 x")
  }

  @Test("--watch notices a change to a module, to one required late by a made-up name as well")
  func module() throws {
    let body = """
      local early = require "early"
      function handlers.on_message(conn, text)
        local name = "la" .. "te"
        conn:send(early .. " " .. require(name))
      end
      """
    let folder = try TemporaryFolder()
    try folder.write("early.lua", "return 'early 1'\n")
    try folder.write("late.lua", "return 'late 1'\n")
    let server = try MoonportProcess(script: script("1", body), folder: folder) {
      $0.listen = MoonportProcess.anyPort
      $0.arguments = ["--watch"]
    }
    let client = try server.connect()
    #expect(try client.ask("x") == "early 1 late 1")
    try folder.replace("early.lua", "return 'early 2'\n")
    try eventually("the early module is reloaded") { try client.ask("x") == "early 2 late 1" }
    try folder.replace("late.lua", "return 'late 2'\n")
    try eventually("the late module is reloaded") { try client.ask("x") == "early 2 late 2" }
  }

  @Test("--watch reloads once a script that could not be loaded is repaired")
  func repaired() throws {
    let server = try MoonportProcess(serving: script("1"), ["--watch"])
    let client = try server.connect()
    try server.replaceScript(script("2", "require 'missing'"))
    try server.waitForErrors(containing: "module 'missing' not found")
    #expect(try client.ask("x") == "1 x")
    try server.folder.write("missing.lua", "return 1\n")
    try waitForVersion("2", server)
  }

  @Test("many triggers that come together make few reloads, and all who asked learn how theirs went")
  func coalescing() throws {
    let slow = "local stop = os.clock() + 0.5; while os.clock() < stop do end"
    let server = try MoonportProcess(serving: script("1"), workers: 1)
    try server.replaceScript(script("2", slow))
    // The socket itself: a process for each would spread the triggers over seconds on a busy machine.
    let operators = try (0..<30).map { index in
      let client = try TestClient("unix:\(server.adminPath)")
      try client.send("9:6:reload,,")
      if index % 3 == 0 { server.sendSignal(SIGHUP) }
      return client
    }
    for client in operators { #expect(contains(try client.receiveTextUntilEnd(), " is live")) }
    try eventually("the last of them is over") { try server.connect().ask("x") == "2 x" }
    let generation = try server.status()["generation"].integer ?? 0
    #expect((2...8).contains(generation), "40 triggers made \(generation - 1) reloads")
  }
}
