// The log under clients that want to write it, flood it, or profit from its being full: one event stays one line, repeats become
// a count, and no disk, pipe or limit stops the server.
//
// Must never know: anything but the program's command line, its streams and its sockets.

import Glibc
import TestSupport
import Testing

@Suite struct HostileLogTests {
  /// What a client may send in one line: each would end a line, steer a terminal, reorder text or break a decoder.
  private static let hostile: [[UInt8]] = [
    Array("\u{1b}[2J\u{1b}]0;owned\u{7}".utf8), [0, 1, 2, 0], [0xff, 0xfe, 0xc0, 0x80, 0xed, 0xa0, 0x80],
    Array("a\rb".utf8),
    Array("\u{2028}2026-11-21T10:00:00.000Z error forged\u{2029}".utf8), Array("\u{202e}txet\u{2066}".utf8),
    Array("\" level=\"error\" message=\"forged".utf8), Array("\\n\\x00\\".utf8), Array("\u{85}\u{9b}31m".utf8),
    [UInt8](repeating: UInt8(ascii: "m"), count: 1 << 20), [UInt8](repeating: 0xff, count: 1 << 20),
  ]

  private static let script = """
    function h.on_message(conn, text)
      moonport.log.info(text)
      moonport.log.warn("fields", { text = text, [text] = 1 })
      conn:send("logged")
      error(text)
    end
    """

  /// At most 9 errors at one place for one server: more in a second would be counted instead.
  @Test(arguments: ["text", "json"], [0..<6, 6..<11])
  func `whatever a client sends and a script logs or raises, one event is one harmless line`(
    format: String, chosen: Range<Int>
  ) throws {
    let server = try MoonportProcess.serving(
      HostileLogTests.script, "codec = { type = 'line', max_length = 2097152 }"
    ) { $0.arguments = ["--log-format", format] }
    for (index, bytes) in HostileLogTests.hostile[chosen].enumerated() {
      let client = try server.connect()
      try client.send(bytes + [10])
      #expect(try client.receiveLine() == "logged")
      #expect(try client.waitForEnd() == .closed)
      // The log waits for nobody: of what is not read in time lines are dropped, and counted.
      try eventually("its lines have come") { occurrences(of: "\n", in: server.errors) >= 3 * (index + 1) + 1 }
    }
    try server.connect().send("the last\n")
    try server.waitForErrors(containing: "the last\\nstack traceback")
    try server.stop()
    let lines = server.errors.split(separator: "\n", omittingEmptySubsequences: false).dropLast()
      .filter { !$0.hasPrefix("listening on ") }
    #expect(lines.count == 3 * (chosen.count + 1), "three of each")
    for line in lines {
      #expect(line.hasPrefix(format == "json" ? "{\"time\":\"20" : "20"), "\(line)")
      // Three bounded texts, of which a byte may take six.
      #expect(line.utf8.count < 3 * 6 * 8192 + 1000)
      #expect(line.unicodeScalars.allSatisfy { !isDangerous($0) }, "\(line)")
      if format == "json" { #expect(try JSON(parsing: String(line))["message"].text != nil) }
    }
  }

  private func isDangerous(_ scalar: Unicode.Scalar) -> Bool {
    switch scalar.value {
    case 0..<0x20, 0x7f..<0xa0, 0x2028...0x202e, 0x2066...0x2069: true
    default: false
    }
  }

  @Test func `a flood of errors, each about another client and its other words, becomes some lines and a count`() throws
  {
    let server = try MoonportProcess.serving(
      "function h.on_message(conn, text) moonport.after(0, function() error('cannot do ' .. text) end) end")
    let start = Deadline.uptime
    try server.connect().send((0..<1000).map { "thing \($0)\n" }.joined())
    // All have one byte to go before any sends it, so that they come together on any machine.
    let long = try (0..<40).map { _ in try server.connect() }
    for client in long { try client.send([UInt8](repeating: UInt8(ascii: "x"), count: 65_536)) }
    for client in long { try client.send("x") }
    for client in long { _ = try client.waitForEnd() }
    try eventually("all have failed") { try server.status()["errors"].integer == 1000 }
    try server.stop()
    // 10 in a second of each, however long it took.
    let most = 10 * (Int(Deadline.uptime - start) + 2)
    #expect(occurrences(of: "info  closing a connection", in: server.errors) <= most)
    #expect(occurrences(of: "error \(server.scriptPath):5: cannot do thing", in: server.errors) <= most)
    let counts = server.errors.split(separator: "\n").filter { contains(String($0), " repeated=") }.joined()
    #expect(contains(counts, ": cannot do thing"), "\(server.errors)")
    #expect(contains(counts, "times: closing a connection"))
  }

  @Test func `what a script logs is counted as repeated only where all of it is the same`() throws {
    let server = try MoonportProcess.serving(
      "function h.on_message(conn, text) for i = 1, 40 do moonport.log.info('request', { number = i }) end conn:send('done') end"
    )
    #expect(try server.connect().ask("go") == "done")
    try server.waitForErrors(containing: "number=40")
    #expect(occurrences(of: "number=", in: server.errors) == 40)
  }

  @Test(arguments: [
    ("a full disk", "exec \"$0\" \"$@\" >/dev/full 2>/dev/full"), ("closed streams", "exec \"$0\" \"$@\" <&- >&- 2>&-"),
    ("pipes whose readers have gone", "mkfifo p q; exec 8<>p 9<>q 3>p 4>q 8<&- 9<&-; exec \"$0\" \"$@\" >&3 2>&4"),
    ("pipes that nobody reads", "mkfifo p q; exec 8<>p 9<>q; exec \"$0\" \"$@\" >&8 2>&9"),
    ("a limit of file sizes", "ulimit -f 8; exec \"$0\" \"$@\" >out 2>err"),
  ])
  func `the server goes on serving with its log and output on`(what: String, shell: String) throws {
    let folder = try TemporaryFolder()
    try folder.write(
      "main.lua",
      """
      local moonport = require "moonport"
      moonport.listen { address = "unix:s", codec = "line" }
      return { on_message = function(conn, text)
        for i = 1, 2000 do moonport.log.warn("line " .. i .. " of " .. text) print("line", i) end
        conn:send(text)
      end }
      """)
    var launch = Launch(
      "/bin/sh", ["-c", shell, try MoonportProcess.executable(), "run", "main.lua", "--admin", "a", "--workers", "1"])
    launch.workingFolder = folder.path
    let child = try ChildProcess(launch)
    try eventually("\(what): it serves") { (try? TestClient("unix:\(folder.file("s"))")) != nil || !child.isRunning }
    for round in 0..<3 {
      #expect(try TestClient("unix:\(folder.file("s"))").ask("\(round)") == "\(round)")
    }
    child.sendSignal(SIGTERM)
    #expect(try child.waitForExit() == .exited(0))
  }
}
