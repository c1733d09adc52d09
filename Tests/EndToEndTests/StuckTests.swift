// A worker that is stuck where nothing can end it: who is told, who goes on, and how the process ends.
//
// Must never know: how the watchdog finds it.

import Glibc
import TestSupport
import Testing

@Suite(.serialized) struct StuckTests {
  /// A pattern that takes longer than any test.
  private static let script = """
    function h.on_message(conn, text)
      if text == "bomb" then
        return ("a"):rep(40):match(("a?"):rep(40) .. ("a"):rep(40))
      end
      conn:send(text .. moonport.worker.id)
    end
    """

  @Test func `a worker stuck in a C function is reported with the script's line while the others serve`() throws {
    let server = try MoonportProcess.serving(StuckTests.script, workers: 2) {
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
    let server = try MoonportProcess.serving(StuckTests.script) {
      $0.arguments = ["--handler-budget", "0.1", "--stuck-limit", "0.5"]
    }
    let client = try server.connect()
    try client.send("bomb\n")
    #expect(try server.waitForExit() == .exited(70))
    try server.waitForErrors(containing: "a worker was stuck past --stuck-limit; ending the process")
    #expect(access(server.adminPath, F_OK) != 0)
  }
}
