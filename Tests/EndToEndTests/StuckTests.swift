// A worker that is stuck where nothing can end it: who is told, who goes on, and how the process ends.
//
// Must never know: how the watchdog finds it.

import Glibc
import TestSupport
import Testing

@Suite(.serialized) struct StuckTests {
  /// A pattern that takes longer than any test.
  private static let bombing = """
    function h.on_message(conn, text)
      if text == "bomb" then
        return ("a"):rep(40):match(("a?"):rep(40) .. ("a"):rep(40))
      end
      conn:send(text .. moonport.worker.id)
    end
    """

  @Test func `a worker stuck in a C function is reported with the script's line while the others serve`() throws {
    let server = try MoonportProcess.serving(StuckTests.bombing, workers: 2) {
      $0.arguments = ["--handler-budget", "0.1"]
    }
    let stuck = try server.connect()
    let itsWorker = try stuck.ask("worker ")
    var other = try server.connect()
    while try other.ask("worker ") == itsWorker { other = try server.connect() }
    try stuck.send("bomb\n")
    try server.waitForErrors(containing: "a worker is stuck: a C function does not return")
    try server.waitForErrors(containing: "main.lua:7 seconds=")
    #expect(try other.ask("worker ") != itsWorker)
    let status = try server.control("status")
    #expect(contains(status.output, "main.lua:7"), "\(status.output)")
    #expect(contains(try server.control("status", "--json").output, "main.lua:7\",\"stuck_seconds\":"))
    #expect(try other.ask("worker ") != itsWorker)
  }

  @Test func `past the stuck limit the process ends with status 70 and leaves no admin socket`() throws {
    let server = try MoonportProcess.serving(StuckTests.bombing) {
      $0.arguments = ["--handler-budget", "0.1", "--stuck-limit", "0.5"]
    }
    let client = try server.connect()
    try client.send("bomb\n")
    #expect(try server.waitForExit() == .exited(70))
    try server.waitForErrors(containing: "a worker was stuck past --stuck-limit; ending the process")
    #expect(access(server.adminPath, F_OK) != 0)
  }

  /// A script that never gets past its second line.
  private static let stuckWhileLoading = """
    local moonport = require "moonport"
    local _ = ("a"):rep(40):match(("a?"):rep(40) .. ("a"):rep(40))
    return {}
    """
  private static let bounds = ["--load-budget", "0.1", "--stuck-limit", "0.3"]

  @Test(arguments: ["check", "run"])
  func `a script stuck in a C function while it loads is given up`(_ command: String) throws {
    let folder = try TemporaryFolder()
    try folder.write("main.lua", StuckTests.stuckWhileLoading)
    let result = try MoonportProcess.runTool([command, "main.lua"] + StuckTests.bounds, workingFolder: folder.path)
    #expect(result.status == .exited(1))
    #expect(contains(result.errors, "main.lua:2: stuck in a C function that does not return"), "\(result)")
    // A pre-commit hook is told of the finding and of nothing else.
    if command == "check" { #expect(result.errors.split(separator: "\n").count == 1, "\(result)") }
  }

  @Test func `a reload that is stuck in a C function is given up, and the old code goes on`() throws {
    let server = try MoonportProcess(serving: script("1"), workers: 2, StuckTests.bounds)
    let client = try server.connect()
    for round in 2...5 {
      try server.replaceScript(StuckTests.stuckWhileLoading)
      let errors = try server.refused("reload")
      #expect(contains(errors, "main.lua:2: stuck in a C function that does not return"), "\(errors)")
      try server.waitForErrors(containing: "the trial of a script is stuck: a C function does not return")
      // The fourth trial that cannot be ended is the last.
      if round == 5 { break }
      try server.reload(script("\(round)"))
      #expect(try client.ask("after") == "\(round) after")
    }
    #expect(contains(try server.refused("reload"), "4 earlier trials are still stuck in C functions"))
    #expect(try client.ask("still") == "4 still")
    try server.stop()
  }
}
