// Every example of the reference and of the README is run by the built program, and does what the page says. How examples are
// written so that they can be run is told at the head of PageExample.swift.
//
// Must never know: what the examples are about.

import Foundation
import TestSupport
import Testing

@Suite struct ReferenceExampleTests {
  static let reference = "docs/REFERENCE.md"

  @Test(arguments: try PageExample.all(of: reference))
  func `an example of the reference does what it says`(example: PageExample) throws {
    #expect(
      !example.printed.isEmpty || !example.session.isEmpty,
      "\(example.testDescription): say by --> what it prints, or by a session what clients see")
    try ExampleRun(example).run()
  }

  @Test(arguments: try PageExample.all(of: "README.md"))
  func `an example of the README does what it says`(example: PageExample) throws {
    try ExampleRun(example).run()
  }

  @Test func `the reference has examples, and their forms are recognised`() throws {
    let examples = try PageExample.all(of: ReferenceExampleTests.reference)
    #expect(examples.count > 20)
    #expect(examples.contains { $0.text.hasPrefix("local moonport") })
    #expect(examples.contains { !$0.printed.isEmpty })
    #expect(examples.contains { !$0.session.isEmpty })
  }

  @Test func `an example that does not do what it says fails`() throws {
    let talks = "function handlers.on_message(conn, text) conn:send(text) end\n"
    for (text, session) in [
      ("print(1) --> 2\n", []), ("print(1)\nprint(2) --> 1\n", []), ("error('x')\n", []), ("oops\n", []),
      (talks, ["> a", "< b"]), (talks, ["> a", "< a", "log: warn  no such line"]), (talks, ["$ moonport kick 7"]),
      (talks, ["what is this"]), (talks, ["< (closed)"]),
    ] as [(String, [String])] {
      let example = PageExample(page: "a page", line: 1, text: text, session: session)
      #expect(throws: (any Error).self, "\(text) \(session)") {
        try ExampleRun(example, secondsMax: 1).run()
      }
    }
  }

  @Test func `an expected text may leave things open`() {
    for (text, pattern) in [("abc", "abc"), ("abc", "a…"), ("abc", "…c"), ("abc", "a…c"), ("abc", "…"), ("ac", "a…c")] {
      #expect(PageExample.matches(text, pattern))
    }
    for (text, pattern) in [("abc", "ab"), ("abc", "b…"), ("abc", "…b"), ("abc", "a…x…c"), ("a", "a…a")] {
      #expect(!PageExample.matches(text, pattern))
    }
    #expect(PageExample.bytes(#"a\0\10b\xff\n\\"#) == [97, 0, 10, 98, 255, 10, 92])
  }
}

/// One example on a server of its own.
private struct ExampleRun {
  let example: PageExample
  let server: MoonportProcess
  let secondsMax: Double

  init(_ example: PageExample, secondsMax: Double = Patience.seconds) throws {
    self.example = example
    self.secondsMax = secondsMax
    let folder = try TemporaryFolder()
    for (name, text) in example.files { try folder.write(name, text) }
    // An address of its own for each: the ports are the page's.
    let number = UInt32.random(in: 0..<1 << 22)
    let host = "127.\(64 + number >> 16).\(number >> 8 & 255).\(1 + number % 250)"
    let script = example.script(host: host, folder: folder.path)
    server = try MoonportProcess(script: script, folder: folder) {
      $0.workers = 1
      $0.listeners = script.components(separatedBy: "moonport.listen {").count - 1
    }
  }

  func run() throws {
    try talk()
    try waitForPrinted()
    // What it is still about to do, it has done then.
    guard try server.control("stop").status == .exited(0) else { throw failure("the server did not stop") }
    try comparePrinted()
    try compareErrors()
  }

  // MARK: The session

  private func talk() throws {
    let lines = try example.session.filter { !$0.isEmpty }.map(SessionLine.init)
    var clients: [String: TestClient] = [:]
    for case .client(let name, let listener, _) in lines where clients[name] == nil {
      clients[name] = try server.connect(listener: listener - 1)
      clients[name]?.timeout = secondsMax
      // The server has it before the next one comes, so that what they see of each other is the same every time.
      let count = clients.count
      try eventually("\(count) clients are in", timeout: secondsMax) {
        try server.control("status", "--json").output.contains("\"connections\":\(count),")
      }
    }
    for line in lines {
      switch line {
      case .client(let name, _, let act): try perform(act, clients[name])
      case .command(let words):
        let command = Array(words.prefix(1)) + ["--admin", server.adminPath] + words.dropFirst()
        let result = try MoonportProcess.runTool(command)
        guard result.status == .exited(0) else { throw failure("\(words): \(result)") }
      case .log(let pattern):
        let isLogged = server.child.errors.wait(timeout: secondsMax) { text in
          logLines(text).contains { PageExample.matches($0, pattern) }
        }
        guard isLogged else { throw failure("the log does not say: \(pattern)") }
      }
    }
  }

  private func perform(_ act: SessionLine.Act, _ client: TestClient?) throws {
    guard let client else { throw failure("a client is missing") }
    switch act {
    case .send(let bytes): try client.send(bytes)
    case .leave: client.close()
    case .endSending: try client.halfClose()
    case .getLine(let pattern):
      let line = try client.receiveLine()
      guard PageExample.matches(line, pattern) else { throw failure("a client got '\(line)', not '\(pattern)'") }
    case .getBytes(let bytes):
      let got = try client.receive(exactly: bytes.count)
      guard got == bytes else { throw failure("a client got \(got), not \(bytes)") }
    case .getEnd(let end):
      let got = try client.waitForEnd()
      guard got == end else { throw failure("the connection was \(got), not \(end)") }
    }
  }

  // MARK: What it prints and logs

  private func waitForPrinted() throws {
    let expected = example.printed
    let isPrinted = server.child.output.wait(timeout: secondsMax) {
      $0.components(separatedBy: "\n").count > expected.count
    }
    guard isPrinted || expected.isEmpty else { throw failure("it did not print \(expected)") }
  }

  private func comparePrinted() throws {
    let expected = example.printed
    if expected.isEmpty { return }
    let printed = server.output.components(separatedBy: "\n").dropLast()
    let agrees =
      printed.count == expected.count && zip(printed, expected).allSatisfy { PageExample.matches($0, $1) }
    guard agrees else { throw failure("it printed \(printed), not \(expected)") }
  }

  /// An error that the session does not show is none that the example wants. That a worker stood still for seconds, on a busy
  /// machine, is no fault of the example.
  private func compareErrors() throws {
    let wanted = example.session.filter { $0.hasPrefix("log: ") }.map { String($0.dropFirst(5)) }
    for line in logLines(server.errors)
    where line.hasPrefix("error ") && !line.hasPrefix("error a worker is stuck") && !wanted.contains(where: { PageExample.matches(line, $0) }) {
      throw failure("it logged: \(line)")
    }
  }

  /// The whole lines of the log without their times.
  private func logLines(_ text: String) -> [String] {
    text.components(separatedBy: "\n").dropLast().compactMap { line in
      line.firstIndex(of: " ").map { String(line[line.index(after: $0)...]) }
    }
  }

  private func failure(_ text: String) -> TestFailure {
    TestFailure("\(example.testDescription): \(text)\n\(server.child.transcript)")
  }
}

/// One line of a session.
private enum SessionLine {
  enum Act {
    case send([UInt8]), leave, endSending
    case getLine(String), getBytes([UInt8]), getEnd(TestClient.End)
  }

  case client(String, listener: Int, Act)
  case command([String])
  case log(String)

  init(_ line: String) throws {
    if line.hasPrefix("$ moonport ") {
      self = .command(line.dropFirst("$ moonport ".count).split(separator: " ").map(String.init))
      return
    }
    if line.hasPrefix("log: ") {
      self = .log(String(line.dropFirst("log: ".count)))
      return
    }
    guard let match = line.wholeMatch(of: /(\w*)(?:@(\d+))?(>>|<<|>|<)(?: (.*))?/) else {
      throw TestFailure("'\(line)' is no line of a session")
    }
    let text = match.4.map(String.init) ?? ""
    self = .client(
      String(match.1), listener: match.2.flatMap { Int($0) } ?? 1, SessionLine.act(String(match.3), text))
  }

  private static func act(_ sign: String, _ text: String) -> Act {
    switch (sign, text) {
    case (">", "(leaves)"): .leave
    case (">", "(ends)"): .endSending
    case ("<", "(closed)"): .getEnd(.closed)
    case ("<", "(reset)"): .getEnd(.reset)
    case (">", _): .send(Array((text + "\n").utf8))
    case (">>", _): .send(PageExample.bytes(text))
    case ("<<", _): .getBytes(PageExample.bytes(text))
    default: .getLine(text)
    }
  }
}
