// Offloaded calls and the end of things: a reload, the grace, and the server's stop, with functions that run, wait or never end.
//
// Must never know: anything but the program's command line, its streams and its sockets.

import Glibc
import TestSupport
import Testing

@Suite struct OffloadReloadTests {
  private static let endless = "return function() while true do end end"

  /// A script that offloads what it is asked to, with a module for each call.
  private static func offloading(_ version: String) -> String {
    script(
      version,
      """
      function handlers.on_message(conn, name)
        if name == "wait" then
          conn:send("waiting")
          name = conn:receive()
        end
        conn:send(tostring((moonport.offload(name, "\(version)"))))
      end
      """)
  }

  private func start(
    _ modules: [String: String], threads: Int = 2, _ arguments: [String] = []
  ) throws -> MoonportProcess {
    let folder = try TemporaryFolder()
    for (name, text) in modules { try folder.write(name, text) }
    return try MoonportProcess(script: Self.offloading("1"), folder: folder) {
      $0.workers = 2
      $0.arguments = ["--offload-threads", "\(threads)"] + arguments
    }
  }

  @Test func `old code offloads the old module, new code the new one, whichever thread runs it`() throws {
    let module = { (number: Int) in
      "local calls = 0 return function(v) calls = calls + 1 return 'module \(number) for ' .. v .. ' call ' .. calls end"
    }
    // One thread, so that it has states of both generations. The module is read with the script, though it is asked for late.
    let named = "if false then moonport.offload('mod') end\n"
    let folder = try TemporaryFolder()
    try folder.write("mod.lua", module(1))
    let server = try MoonportProcess(script: Self.offloading("1") + "-- " + named, folder: folder) {
      $0.arguments = ["--offload-threads", "1"]
      $0.workers = 2
    }
    try server.replaceScript(
      Self.offloading("2").replacingLine("handlers.on_message = ", with: named + "handlers.on_message = "))
    try server.done("reload")
    let old = try server.connect()
    #expect(try old.ask("wait") == "waiting")
    let before = try server.connect()
    #expect(try before.ask("wait") == "waiting")
    try folder.write("mod.lua", module(3))
    try server.reload(Self.offloading("3"))
    let new = try server.connect()
    #expect(try new.ask("mod") == "module 3 for 3 call 1")
    // Never called before the reload, but of the snapshot of then.
    #expect(try old.ask("mod") == "module 1 for 2 call 1")
    #expect(try before.ask("mod") == "module 1 for 2 call 2")
    #expect(try new.ask("mod") == "module 3 for 3 call 2")
    #expect(try old.ask("mod") == "module 3 for 3 call 3")
  }

  @Test func `a function that never ends holds up neither a reload nor its caller's end, and the server stops`() throws
  {
    let server = try start(["endless.lua": Self.endless, "echo.lua": "return function(v) return v end"])
    let stuck = try server.connect()
    try stuck.send("endless\n")
    try eventually("it runs") { try server.status()["offload"]["running"].integer == 1 }
    try server.reload(Self.offloading("2"))
    #expect(try server.status()["handlers_on_older_generations"].integer == 1)
    try server.reload(Self.offloading("3"))
    try server.waitForErrors(containing: "reloaded")
    #expect(try server.status()["handlers_on_older_generations"].integer == 0)
    // With its caller the function has been ended.
    try eventually("its thread is free") { try server.status()["offload"]["running"].integer == 0 }
    let client = try server.connect()
    #expect(try client.ask("echo") == "3")
    try client.send("endless\n")
    try eventually("another runs") { try server.status()["offload"]["running"].integer == 1 }
    try server.done("stop")
    #expect(try server.waitForExit() == .exited(0))
    #expect(!contains(server.errors, "stuck"))
  }

  @Test func `a function stuck in C holds up neither a reload nor the end of the server, and its result is dropped`()
    throws
  {
    let server = try start(
      [
        "stuck.lua": """
        return function()
          for line in io.lines(arg[0]:match("^(.*)/") .. "/fifo") do print("read " .. line) end
          return "late"
        end
        """,
        "echo.lua": "return function(v) return v end",
      ], ["--reload-grace", "0"])
    let path = server.folder.file("fifo")
    #expect(mkfifo(path, 0o600) == 0)
    let first = try server.connect()
    try first.send("stuck\n")
    try eventually("it runs") { try server.status()["offload"]["running"].integer == 1 }
    try server.reload(Self.offloading("2"))
    #expect(try first.receiveLineOrEnd() == nil)
    #expect(try server.connect().ask("echo") == "2")
    #expect(try server.status()["offload"]["running"].integer == 1)
    // Once it comes back from C it is ended.
    try server.folder.write("fifo", "a\n")
    try eventually("it is over") { try server.status()["offload"]["running"].integer == 0 }
    try server.connect().send("stuck\n")
    try eventually("another runs") { try server.status()["offload"]["running"].integer == 1 }
    try server.done("stop")
    #expect(try server.waitForExit() == .exited(0))
    try server.waitForErrors(containing: "offloaded functions are stuck in C functions and end with the process")
  }

  @Test func `SIGTERM with endless functions on all threads and calls that wait ends the server within the drain`()
    throws
  {
    let server = try start(["endless.lua": Self.endless], threads: 1)
    let clients = try server.connect(4)
    for client in clients { try client.send("endless\n") }
    try eventually("one runs, the others wait") {
      let offload = try server.status()["offload"]
      return offload["running"].integer == 1 && offload["waiting"].integer == 3
    }
    try server.done("drain", "--timeout", "0.2")
    #expect(try server.waitForExit() == .exited(3), "clients were cut off")
  }

  @Test func `with its caller a call is ended, and one that had not begun never does`() throws {
    let server = try start(
      [
        "for_ever.lua": """
        return function(version)
          print("begun " .. version)
          while pcall(function() while true do end end) do end
          print("ended " .. version)
        end
        """,
        "mark.lua": "return function(v) print('mark ' .. v) return v end",
      ], threads: 1, ["--reload-grace", "0"])
    let running = try server.connect()
    try running.send("for_ever\n")
    try server.waitForOutput(containing: "begun 1\n")
    let waiting = try server.connect()
    try waiting.send("mark\n")
    try eventually("it waits") { try server.status()["offload"]["waiting"].integer == 1 }
    try server.reload(Self.offloading("2"))
    // Both handlers are ended with an error, which closes their connections.
    #expect(try running.receiveLineOrEnd() == nil)
    #expect(try waiting.receiveLineOrEnd() == nil)
    #expect(try server.status()["offload"]["waiting"].integer == 0)
    let client = try server.connect()
    #expect(try client.ask("mark") == "2")
    #expect(server.outputCount(of: "mark 1") == 0 && server.outputCount(of: "ended") == 0)
  }
}

extension String {
  /// The text with the line that begins with `start` replaced by `new` and the rest of it.
  fileprivate func replacingLine(_ start: String, with new: String) -> String {
    split(separator: "\n", omittingEmptySubsequences: false).map { line in
      line.hasPrefix(start) ? new + line.dropFirst(start.count) : String(line)
    }.joined(separator: "\n")
  }
}
