// The command line without a running server: `check`, servers that cannot start, wrong usage, and help.

import TestSupport
import Testing

@Suite struct CommandLineTests {
  @Test("check is silent and ends with 0 for a good script")
  func goodScript() throws {
    let folder = try TemporaryFolder()
    try folder.write("library.lua", "return 1\n")
    let text = script(
      "1", "print('loading', arg[1]); require 'library'; moonport.broadcast('x'); moonport.log.info('x')")
    let result = try MoonportProcess.runTool(["check", folder.write("main.lua", text), "--", "argument"])
    #expect(result.status == .exited(0))
    #expect(result.output.isEmpty)
    #expect(result.errors.isEmpty)
  }

  @Test("check names file and line of what is wrong and ends with 1", arguments: BrokenScript.all)
  func badScript(_ broken: BrokenScript) throws {
    // What shows on a worker or in a reload only is none of check's business.
    if broken.text.contains("worker.id") || broken.text.contains("on_restore") { return }
    if broken.testDescription == "the same address twice" { return }
    let folder = try TemporaryFolder()
    try folder.write("broken.lua", "local x\nx = = 2\n")
    try folder.write("failing.lua", "\nerror('not today')\n")
    try folder.write("main.lua", broken.text)
    let result = try MoonportProcess.runTool(["check", "main.lua"], workingFolder: folder.path)
    #expect(result.status == .exited(1))
    #expect(result.output.isEmpty)
    for part in broken.expected { #expect(contains(result.errors, part), "\(part) is missing in: \(result.errors)") }
    let place = result.errors.split(separator: ":", maxSplits: 2)
    #expect(place.count == 3 && place[0].hasSuffix(".lua") && Int(place[1]) != nil, "\(result.errors)")
  }

  @Test("check of a script that is not there ends with 1")
  func missingScript() throws {
    let result = try MoonportProcess.runTool(["check", "/nowhere/main.lua"])
    #expect(result.status == .exited(1))
    #expect(contains(result.errors, "/nowhere/main.lua: no such file"))
  }

  @Test(
    "run ends with 1 and the script's error when it cannot be loaded",
    arguments: [
      (script("1", "error('no luck')"), "main.lua:4: no luck"),
      ("return {\n", "main.lua:2:"),
      (script("1", "if moonport.worker.id == 2 then error('not on two') end"), "main.lua:4: not on two"),
    ])
  func runBadScript(_ text: String, _ expected: String) throws {
    let server = try MoonportProcess(script: text) {
      $0.listeners = 0
      $0.workers = 2
    }
    #expect(try server.waitForExit() == .exited(1))
    #expect(contains(server.errors, expected), "\(server.errors)")
    #expect(!contains(server.errors, "listening on"))
  }

  @Test("run ends with 1 when an address is in use, with the line that asks for it")
  func runAddressInUse() throws {
    let taken = try TestListener()
    let server = try MoonportProcess(script: script("1", "moonport.listen { address = '\(taken.address)' }")) {
      $0.listeners = 0
    }
    #expect(try server.waitForExit() == .exited(1))
    #expect(contains(server.errors, "main.lua:4:") && contains(server.errors, taken.address), "\(server.errors)")
    let other = try MoonportProcess(script: script("1")) {
      $0.listen = taken.address
      $0.listeners = 0
    }
    #expect(try other.waitForExit() == .exited(1))
    #expect(contains(other.errors, taken.address), "\(other.errors)")
  }

  @Test("run without a script's file, or with an admin socket that a server answers on, ends with 1")
  func runRefused() throws {
    let missing = try MoonportProcess.runTool(["run", "/nowhere/main.lua"])
    #expect(missing.status == .exited(1))
    #expect(contains(missing.errors, "/nowhere/main.lua: no such file"))
    let server = try MoonportProcess(serving: script("1"))
    let second = try MoonportProcess.runTool(["run", server.scriptPath, "--admin", server.adminPath])
    #expect(second.status == .exited(1))
    #expect(contains(second.errors, server.adminPath), "\(second)")
    #expect(try server.status()["generation"].integer == 1, "the first one still answers")
  }

  @Test(
    "wrong usage ends with 64 and says what is wrong on standard error",
    arguments: [
      ["dance"], ["run"], ["run", "a.lua", "b.lua"], ["run", "a.lua", "--unknown"], ["run", "a.lua", "--workers", "0"],
      ["run", "a.lua", "--workers", "many"], ["run", "a.lua", "--listen", "nowhere"], ["run", "a.lua", "--listen"],
      ["run", "a.lua", "--log-level", "loud"], ["run", "a.lua", "--log-format", "xml"],
      ["run", "a.lua", "--reload-grace", "-1"], ["run", "a.lua", "--admin", String(repeating: "x", count: 200)],
      ["check"], ["reload", "now"], ["rollback", "1"], ["status", "--xml"], ["kick"], ["kick", "nobody"],
      ["kick", "0"],
      ["broadcast"], ["broadcast", "two", "words"], ["drain", "--timeout", "soon"], ["drain", "--timeout=-1"],
      ["stop", "it"], ["connections", "all"], ["connect"],
    ])
  func wrongUsage(_ arguments: [String]) throws {
    let result = try MoonportProcess.runTool(arguments)
    #expect(result.status == .exited(64), "\(arguments): \(result)")
    #expect(result.output.isEmpty)
    #expect(!result.errors.isEmpty)
  }

  @Test("help and version go to standard output with status 0")
  func help() throws {
    for arguments in [["--help"], ["run", "--help"], ["help", "reload"], ["--version"], []] {
      let result = try MoonportProcess.runTool(arguments)
      #expect(result.status == .exited(0))
      #expect(contains(result.output, "moonport"))
      #expect(result.errors.isEmpty)
    }
  }

  @Test("what follows -- is the script's arg, in every generation")
  func scriptArguments() throws {
    let body =
      "function handlers.on_message(conn) conn:send(arg[0]:match('[^/]*$'), ' ', #arg, ' ', table.concat(arg, '|')) end"
    let server = try MoonportProcess(script: script("1", body)) { $0.scriptArguments = ["one", "--two", "three four"] }
    let client = try server.connect()
    #expect(try client.ask("x") == "main.lua 3 one|--two|three four")
    try server.reload(script("2", body))
    #expect(try client.ask("x") == "main.lua 3 one|--two|three four")
  }
}
