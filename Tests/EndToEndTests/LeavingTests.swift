// How a server ends: by signal, by drain and by stop, with clients that finish and clients that do not.

import Glibc
import TestSupport
import Testing

@Suite struct LeavingTests {
  private static let talking = """
    function handlers.on_close(conn, reason) print("closed: " .. reason) end
    function handlers.on_stop(reason) print(("worker %d stops: %s"):format(moonport.worker.id, reason)) end
    """

  /// Waits until nobody is let in any more.
  private func waitUntilClosed(_ server: MoonportProcess) throws {
    try eventually("new clients are refused") { (try? server.connect()) == nil }
  }

  @Test("SIGTERM and SIGINT stop accepting, let clients finish, and end with 0", arguments: [SIGTERM, SIGINT])
  func signalDrains(_ signal: Int32) throws {
    let server = try MoonportProcess(serving: script("1", Self.talking), workers: 2)
    let clients = try server.connect(4)
    for client in clients { #expect(try client.ask("x") == "1 x") }
    server.sendSignal(signal)
    try waitUntilClosed(server)
    for client in clients { #expect(try client.ask("still") == "1 still") }
    #expect(try server.status()["draining"].boolean == true)
    for client in clients { client.close() }
    #expect(try server.waitForExit() == .exited(0))
    #expect(contains(server.output, "closed: peer"))
    #expect(!contains(server.output, "closed: shutdown"))
    for worker in 1...2 { #expect(contains(server.output, "worker \(worker) stops: ")) }
  }

  @Test("a second signal ends the server at once, and clients get a clean end")
  func secondSignal() throws {
    let server = try MoonportProcess(serving: script("1", Self.talking), workers: 2)
    let clients = try server.connect(4)
    for client in clients { #expect(try client.ask("x") == "1 x") }
    server.sendSignal(SIGTERM)
    try waitUntilClosed(server)
    server.sendSignal(SIGTERM)
    for client in clients { #expect(try client.waitForEnd() == .closed) }
    // Far less than the 10 s of a drain.
    #expect(try server.waitForExit(timeout: Patience.scaled(8)) == .exited(0))
    #expect(contains(server.output, "closed: shutdown"))
  }

  @Test("a server stuck in its script's trial is ended by SIGTERM and SIGINT", arguments: [SIGTERM, SIGINT])
  func signalWhileTried(_ signal: Int32) throws {
    let stuck = """
      io.stderr:write("trying\\n")
      local _ = ("a"):rep(40):match(("a?"):rep(40) .. ("a"):rep(40))
      """
    let server = try MoonportProcess(script: stuck) { $0.listeners = 0 }
    try server.waitForErrors(containing: "trying")
    server.sendSignal(signal)
    #expect(try server.waitForExit() == .signaled(signal))
  }

  /// SIGPWR and SIGSTKFLT, which Glibc's module leaves out, the first of the real-time signals that a program may have, and the last.
  private static let unknown: [Int32] = [16, 30, 34, 64]

  @Test("a signal that means nothing to a server ends it as any program, and the next one starts", arguments: unknown)
  func unknownSignal(_ signal: Int32) throws {
    let server = try MoonportProcess(serving: script("1"), workers: 1)
    let client = try server.connect()
    #expect(try client.ask("x") == "1 x")
    server.sendSignal(signal)
    #expect(try server.waitForExit() == .signaled(signal))
    let next = try MoonportProcess(script: script("2"), folder: server.folder) { $0.workers = 1 }
    #expect(try next.connect().ask("x") == "2 x")
    try next.stop()
  }

  @Test("drain returns when the last client has left and the server has ended, and refuses reloads meanwhile")
  func drain() throws {
    let server = try MoonportProcess(serving: script("1"), workers: 2)
    let client = try server.connect()
    #expect(try client.ask("x") == "1 x")
    let drain = TestThread { try server.done("drain", "--timeout", "60") }
    try waitUntilClosed(server)
    #expect(try client.ask("still") == "1 still")
    #expect(contains(try server.refused("reload"), "the server is ending"))
    #expect(try client.ask("still") == "1 still")
    client.close()
    try drain.join()
    #expect(access(server.adminPath, F_OK) != 0)
    #expect(try server.waitForExit() == .exited(0))
  }

  @Test("drain --timeout disconnects those who stay longer")
  func drainTimeout() throws {
    let server = try MoonportProcess(serving: script("1", Self.talking), workers: 2)
    let clients = try server.connect(2)
    for client in clients { #expect(try client.ask("x") == "1 x") }
    let drain = TestThread { try server.done("drain", "--timeout", "0.3") }
    for client in clients { #expect(try client.waitForEnd() == .closed) }
    try drain.join()
    #expect(try server.waitForExit() == .exited(3), "the deadline cut clients off")
    #expect(contains(server.output, "closed: shutdown"))
  }

  @Test("whoever waits for a reload when the server ends is told so", arguments: ["stop", "drain"])
  func reloadingAtTheEnd(_ command: String) throws {
    let server = try MoonportProcess(serving: script("1"), workers: 1)
    // The trial takes its time, in a thread of its own.
    try server.replaceScript(script("2", "local over = os.clock() + 2 repeat until os.clock() > over"))
    let reload = TestThread {
      let problem = try server.refused("reload")
      #expect(contains(problem, "the server is ending"), "\(problem)")
    }
    try eventually("the trial runs") { try server.child.threadStatuses().contains { contains($0, "Name:\treload\n") } }
    try server.done(command)
    try reload.join()
    #expect(try server.waitForExit() == .exited(0))
  }

  @Test("a drain that is asked for again gets the new deadline")
  func drainAgain() throws {
    let server = try MoonportProcess(serving: script("1", Self.talking), workers: 2)
    let client = try server.connect()
    #expect(try client.ask("x") == "1 x")
    let long = TestThread { try server.done("drain", "--timeout", "600") }
    try waitUntilClosed(server)
    try server.done("drain", "--timeout", "0.2")
    #expect(try client.waitForEnd() == .closed)
    try long.join()
    #expect(try server.waitForExit() == .exited(3))
  }

  @Test("a worker that is far behind answers its operator, and ends when it is told to, saying what it let go of")
  func farBehind() throws {
    let body = """
      moonport.subscribe("work", function() local over = os.clock() + 0.01 repeat until os.clock() > over end)
      function handlers.on_message(conn, text)
        for number = 1, 5000 do moonport.publish("work", number) end
        conn:send(text)
      end
      """
    let server = try MoonportProcess(serving: script("1", body), workers: 1)
    let client = try server.connect()
    #expect(try client.ask("x") == "x")
    #expect(contains(try server.done("connections"), "127.0.0.1"))
    let done = try server.done("stop")
    #expect(contains(done, "messages were not delivered in time"), "\(done)")
    #expect(try client.waitForEnd() == .closed)
    #expect(try server.waitForExit() == .exited(3))
    #expect(contains(server.errors, "a worker ended before it had handled all that was sent to it"))
    #expect(!contains(server.errors, "did not end:"))
  }

  @Test("stop ends the server now; what was queued for clients still arrives, and the address is free")
  func stop() throws {
    let body = """
      function handlers.on_message(conn, text) for number = 1, 1000 do conn:send("line " .. number) end end
      """
    let server = try MoonportProcess(serving: script("1", body), workers: 2)
    let client = try server.connect()
    try client.send("go\n")
    #expect(try client.receiveLine() == "line 1")
    let address = server.address
    let reader = TestThread {
      let expected = (2...1000).map { "line \($0)\n" }.joined()
      let text = try client.receiveTextUntilEnd()
      #expect(text == expected)
    }
    try server.done("stop")
    try reader.join()
    #expect(try server.waitForExit() == .exited(0))
    let next = try MoonportProcess(script: script("2")) { $0.listen = address }
    #expect(try next.connect().ask("x") == "2 x")
  }

  @Test("a server without clients ends at once on SIGTERM")
  func idle() throws {
    let server = try MoonportProcess(serving: script("1"))
    server.sendSignal(SIGTERM)
    #expect(try server.waitForExit(timeout: Patience.scaled(8)) == .exited(0))
    #expect(access(server.adminPath, F_OK) != 0)
  }

  // The thread sanitizer would call the stuck worker's thread a leak.
  @Test("a handler that never returns cannot keep the server from ending", .enabled(if: Patience.sanitizer == nil))
  func stuckHandler() throws {
    let body = "function handlers.on_message(conn, text) conn:send(text); while text == 'stuck' do end end"
    let server = try MoonportProcess(serving: script("1", body), workers: 2, ["--handler-budget", "0"])
    let clients = try server.connect(2)
    for client in clients { #expect(try client.ask("x") == "x") }
    try clients[0].send("stuck\n")
    let result = try server.control("stop")
    #expect(result.status == .exited(1) && contains(result.errors, "a worker did not end in time"), "\(result)")
    #expect(try server.waitForExit() == .exited(3))
    #expect(contains(server.errors, "a worker did not end"))
  }

  @Test("a drain lets a slow handler finish, and ends with 0")
  func slowHandler() throws {
    let body = "function handlers.on_message(conn, text) moonport.sleep(0.3); conn:send(text); conn:close() end"
    let server = try MoonportProcess(serving: script("1", body), workers: 2)
    let client = try server.connect()
    try client.send("slow\n")
    try eventually("it has begun") { try server.status()["messages_in"].integer == 1 }
    server.sendSignal(SIGTERM)
    #expect(try client.receiveTextUntilEnd() == "slow\n")
    client.close()
    #expect(try server.waitForExit() == .exited(0))
  }

  @Test("a drain is bounded for clients that never read and for those that drip, and ends with 3")
  func neverReading() throws {
    let body =
      "function handlers.on_message(conn, text) for _ = 1, 4 do conn:write(('x'):rep(1000000)) end conn:close() end"
    let server = try MoonportProcess(serving: script("1", body), workers: 2)
    let deaf = try (0..<4).map { _ in try TestClient(server.address, receiveBufferBytes: 4096) }
    for client in deaf { try client.send("x\n") }
    let dripping = try server.connect()
    try dripping.send("never a wh")
    try eventually("all is queued") { try server.status()["messages_in"].integer == 4 }
    let result = try server.control("drain", "--timeout", "0.3")
    #expect(result.status == .exited(0) && contains(result.output, "clients were cut off"), "\(result)")
    #expect(try server.waitForExit(timeout: Patience.scaled(8)) == .exited(3))
    #expect(contains(server.errors, "the time to drain is up: clients are cut off"))
  }

  @Test(
    "a drain is bounded whatever the handler does that keeps a client, and ends with 3",
    arguments: [
      "moonport.sleep(1e6)", "while true do moonport.sleep(0) end", "while true do end", "conn:receive()",
      "moonport.spawn(moonport.sleep, 1e6):wait()", "while true do pcall(moonport.sleep, 0.01) end",
    ])
  func keepingHandler(_ keeping: String) throws {
    let body = "function handlers.on_message(conn, text) conn:send(text) \(keeping) end"
    // Longer than the drain: the loop is not ended by its budget first.
    let server = try MoonportProcess(serving: script("1", body), workers: 2, ["--handler-budget", "4"])
    let clients = try server.connect(2)
    for client in clients { try client.send("x\n") }
    try eventually("both handlers run") { try server.status()["messages_in"].integer == 2 }
    let begun = Deadline.uptime
    let drain = TestThread { _ = try server.control("drain", "--timeout", "0.5") }
    #expect(try server.waitForExit(timeout: Patience.scaled(15)) == .exited(3))
    try drain.join()
    #expect(Deadline.uptime - begun >= 0.5)
    for client in clients { #expect((try? client.waitForEnd()) != nil) }
  }

  @Test("on_stop cannot wait: a call that would raises, and the server ends all the same")
  func waitInStop() throws {
    let body = """
      function handlers.on_stop()
        print(pcall(moonport.sleep, 100))
        moonport.sleep(100)
        print("never")
      end
      """
    let server = try MoonportProcess(serving: script("1", body), workers: 1)
    server.sendSignal(SIGTERM)
    #expect(try server.waitForExit(timeout: Patience.scaled(8)) == .exited(0))
    #expect(contains(server.output, "false\tthe server is ending: nothing can wait any more"))
    #expect(contains(server.errors, "nothing can wait any more"))
    #expect(!contains(server.output, "never"))
  }

  @Test("the server writes nothing but what the command line names")
  func writtenPaths() throws {
    let folder = try TemporaryFolder()
    try folder.write("main.lua", script("1"))
    let trace = folder.file("trace")
    var launch = Launch(
      "strace",
      [
        "-f", "-qq", "-e", "trace=%file,bind", "-o", trace, try MoonportProcess.executable(), "run", "main.lua",
        "--admin",
        "admin", "--watch", "--listen", "unix:served",
      ])
    launch.workingFolder = folder.path
    let child = try ChildProcess(launch)
    try eventually("it serves") { (try? TestClient("unix:\(folder.file("served"))").ask("x")) == "1 x" }
    _ = try MoonportProcess.runTool(["reload", "--admin", folder.file("admin")])
    let stopped = try MoonportProcess.runTool(["stop", "--admin", folder.file("admin")])
    #expect(stopped.status == .exited(0), "\(stopped)")
    _ = try child.waitForExit()
    let writing = [
      "O_WRONLY", "O_RDWR", "O_CREAT", "mkdir", "rename", "unlink", "symlink", " link", "mknod", "truncate", "chmod",
      "chown",
      "bind(",
    ]
    let reader = try ChildProcess(Launch("cat", [trace]))
    _ = try reader.waitForExit()
    let lines = reader.output.text.split(separator: "\n").map(String.init)
      .filter { line in writing.contains { contains(line, $0) } && !contains(line, " = -1 ") }
    #expect(lines.contains { contains($0, "\"admin\"") })
    let known = ["\"admin\"", "\"served\"", "\"/dev/null\""]
    for line in lines { #expect(known.contains { contains(line, $0) }, "\(line)") }
  }

  @Test("a Unix socket's file is removed at the end, and a stale one is replaced at the start")
  func socketFile() throws {
    let folder = try TemporaryFolder()
    let path = folder.file("served.sock")
    for _ in 0..<2 {
      let server = try MoonportProcess(script: script("1"), folder: folder) { $0.listen = "unix:\(path)" }
      #expect(try server.connect().ask("x") == "1 x")
      try server.kill()
    }
    let server = try MoonportProcess(script: script("1"), folder: folder) { $0.listen = "unix:\(path)" }
    #expect(try server.connect().ask("x") == "1 x")
    try server.done("stop")
    #expect(access(path, F_OK) != 0)
  }
}
