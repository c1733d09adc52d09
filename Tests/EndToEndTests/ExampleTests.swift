// Every script of examples/, served by the built program and used over real sockets as its first lines say.
//
// Must never know: anything of a script that its user could not see.

import Foundation
import TestSupport
import Testing

@Suite struct ExampleTests {
  /// A server for one of the examples on a port of its own, with its standard input open.
  private func serve(_ name: String, _ configure: (inout MoonportProcess.Options) -> Void = { _ in }) throws
    -> MoonportProcess
  {
    try MoonportProcess(file: ProjectFiles.path("examples/\(name).lua")) {
      $0.listen = MoonportProcess.anyPort
      $0.streams = .pipe
      configure(&$0)
    }
  }

  /// A client that the server has taken in: its entering was announced to `witness`, or it is counted.
  private func enter(_ server: MoonportProcess, seenBy witness: TestClient) throws -> TestClient {
    let client = try server.connect()
    #expect(try witness.receiveLine() == "\(client.localAddress) entered")
    return client
  }

  private func waitForConnections(_ count: Int, of server: MoonportProcess) throws {
    try eventually("\(count) connections are open") {
      try server.control("status", "--json").output.contains("\"connections\":\(count),")
    }
  }

  // MARK: chat

  @Test func `chat prints each line and passes it on exactly as sent to the others alone`() throws {
    let server = try serve("chat")
    let anna = try server.connect()
    try waitForConnections(1, of: server)
    let bert = try enter(server, seenBy: anna)
    let cleo = try enter(server, seenBy: anna)
    #expect(try bert.receiveLine() == "\(cleo.localAddress) entered")

    let long = String(repeating: "ü", count: 5_000)
    for text in ["hi", "", " two  words ", long] {
      try anna.send(text + "\n")
      try server.waitForOutput(containing: "A client says: \(text)\n")
      #expect(try bert.receiveLine() == text)
      #expect(try cleo.receiveLine() == text)
    }
    try anna.send("\u{1b}[2J\0\u{9b}31m\r!\n")
    try server.waitForOutput(containing: "A client says: ?[2J??31m?!\n")
    for client in [bert, cleo] { #expect(try client.receiveLine() == "\u{1b}[2J\0\u{9b}31m\r!") }
    try bert.send("answer\r\n")
    // The first thing that the sender of the lines above gets: none of them came back.
    #expect(try anna.receiveLine() == "answer")
    #expect(try cleo.receiveLine() == "answer")
  }

  @Test func `chat sends a line typed at the server's terminal to all clients`() throws {
    let server = try serve("chat") { $0.arguments = ["--console"] }
    let anna = try server.connect()
    try waitForConnections(1, of: server)
    let bert = try enter(server, seenBy: anna)
    try server.type("tea is ready\nnow\n")
    for client in [anna, bert] {
      #expect(try client.receiveLine() == "tea is ready")
      #expect(try client.receiveLine() == "now")
    }
  }

  @Test func `chat announces who leaves in whatever way, and forgets them`() throws {
    let server = try serve("chat")
    let anna = try server.connect()
    try waitForConnections(1, of: server)
    let descriptors = try server.descriptorCount()
    for round in 0..<20 {
      let guest = try enter(server, seenBy: anna)
      let name = guest.localAddress
      if round.isMultiple(of: 2) { guest.close() } else { guest.reset() }
      #expect(try anna.receiveLine() == "\(name) left")
    }
    #expect(try server.control("broadcast", "still here?").output == "sent to 1 client\n")
    #expect(try anna.receiveLine() == "still here?")
    try eventually("no descriptor is left behind") { try server.descriptorCount() <= descriptors }
  }

  @Test func `chat goes on for the others while one client does not read`() throws {
    let server = try serve("chat")
    let anna = try server.connect()
    try waitForConnections(1, of: server)
    let deaf = try TestClient(server.address, receiveBufferBytes: 4_096)
    #expect(try anna.receiveLine() == "\(deaf.localAddress) entered")
    let bert = try enter(server, seenBy: anna)
    let lines = 2_000
    let padding = String(repeating: ".", count: 1_000)
    let sender = TestThread { for number in 0..<lines { try bert.send("\(number)\(padding)\n") } }
    for number in 0..<lines { #expect(try anna.receiveLine() == "\(number)\(padding)") }
    try sender.join()
    withExtendedLifetime(deaf) {}
  }

  @Test func `chat takes new code while everybody stays`() throws {
    let folder = try TemporaryFolder()
    let text = try ProjectFiles.text("examples/chat.lua")
    let path = try folder.write("chat.lua", text)
    let server = try MoonportProcess(file: path, folder: folder)
    let anna = try server.connect()
    try waitForConnections(1, of: server)
    try folder.replace("chat.lua", text.replacingOccurrences(of: "\" entered\"", with: "\" came in\""))
    #expect(try server.control("reload").status == .exited(0))
    let bert = try server.connect()
    #expect(try anna.receiveLine() == "\(bert.localAddress) came in")
    try anna.send("still here\n")
    #expect(try bert.receiveLine() == "still here")
  }

  // MARK: print

  @Test func `print prints what each client sends, and that it is gone, also after a reset`() throws {
    let server = try serve("print")
    let polite = try server.connect()
    try polite.send("hello\n")
    try server.waitForOutput(containing: "hello\n")
    try polite.send("no line end")
    try server.waitForOutput(containing: "hello\nno line end\n")
    polite.close()
    try server.waitForOutput(containing: "no line end\nclient closed\n")
    let rude = try server.connect()
    try rude.send("wait for it")
    try server.waitForOutput(containing: "wait for it\n")
    rude.reset()
    try server.waitForOutput(containing: "wait for it\nclient closed\n")
    try server.connect().send("\u{1b}[2J\u{9b}31m\ttwo\nlines\r\n")
    let harmless = "?[2J?31m\ttwo\nlines\nclient closed\n"
    try server.waitForOutput(containing: harmless)
    try server.stop()
    #expect(server.output == "hello\nno line end\nclient closed\nwait for it\nclient closed\n" + harmless)
  }

  // MARK: echo

  @Test func `echo answers 10 MB in order, and the rest after the client ended its side`() throws {
    let server = try serve("echo")
    let client = try server.connect()
    client.timeout = Patience.scaled(60)
    let pattern = (0..<10_000_000).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) }
    let sender = TestThread {
      try client.send(pattern)
      try client.halfClose()
    }
    let answer = try client.receiveUntilEnd()
    try sender.join(timeout: Patience.scaled(60))
    #expect(answer.count == pattern.count)
    #expect(answer == pattern)
  }

  @Test func `echo answers each byte by itself`() throws {
    let server = try serve("echo")
    let client = try server.connect()
    for byte in [UInt8(0), 10, 13, 255] {
      try client.send([byte])
      #expect(try client.receive(exactly: 1) == [byte])
    }
  }

  // MARK: totals

  @Test func `totals answers what each client itself has sent, before and after a reload`() throws {
    let folder = try TemporaryFolder()
    let text = try ProjectFiles.text("examples/totals.lua")
    let server = try MoonportProcess(file: folder.write("totals.lua", text), folder: folder)
    let anna = try server.connect()
    let bert = try server.connect()
    try anna.send("hello\nworld\ntotal\n")
    #expect(try anna.receiveLine() == "messages: 2, bytes: 10")
    try bert.send("x\ntotal\n")
    #expect(try bert.receiveLine() == "messages: 1, bytes: 1")

    // Half a line is on its way when the code changes under it.
    try anna.send("to")
    try folder.replace("totals.lua", text.replacingOccurrences(of: "\"messages: \"", with: "\"lines: \""))
    #expect(try server.control("reload").status == .exited(0))
    try anna.send("tal\nabc\ntotal\n")
    #expect(try anna.receiveLine() == "lines: 2, bytes: 10")
    #expect(try anna.receiveLine() == "lines: 3, bytes: 13")
    #expect(try server.control("rollback").status == .exited(0))
    try bert.send("total\n")
    #expect(try bert.receiveLine() == "messages: 1, bytes: 1")
  }

  @Test func `totals caps its clients, and takes the next one when one has left`() throws {
    let server = try serve("totals") { $0.scriptArguments = ["2"] }
    let anna = try server.connect()
    let bert = try server.connect()
    try waitForConnections(2, of: server)
    let descriptors = try server.descriptorCount()
    for _ in 0..<20 { #expect(try server.connect().waitForEnd() == .closed) }
    try eventually("those that the server closed first are gone") { try server.descriptorCount() <= descriptors }
    let status = try server.control("status", "--json").output
    #expect(status.contains("\"refused\":{\"max_connections\":20}"), "\(status)")
    bert.close()
    try waitForConnections(1, of: server)
    let cleo = try server.connect()
    try cleo.send("total\n")
    #expect(try cleo.receiveLine() == "messages: 0, bytes: 0")
    withExtendedLifetime(anna) {}
  }

  // MARK: framed

  /// One request in the form of each listener, and the answer.
  private static let exchanges: [(request: [UInt8], answer: [UInt8])] = [
    (Array("hello\n".utf8), Array("HELLO\n".utf8)),
    (Array("hello\0".utf8), Array("HELLO\0".utf8)),
    (Array("hello..!".utf8), Array("HELLO..!".utf8)),
    ([0, 5] + Array("hello".utf8), [0, 5] + Array("HELLO".utf8)),
    (Array("5:hello,".utf8), Array("5:HELLO,".utf8)),
    ([7, 0, 5] + Array("hello".utf8), [7, 0, 5] + Array("HELLO".utf8)),
  ]

  @Test func `framed answers in each codec whole messages, however they are split`() throws {
    let folder = try TemporaryFolder()
    var text = try ProjectFiles.text("examples/framed.lua")
    for port in 7001...7006 { text = text.replacingOccurrences(of: "127.0.0.1:\(port)\"", with: "127.0.0.1:0\"") }
    let server = try MoonportProcess(file: folder.write("framed.lua", text), folder: folder) { $0.listeners = 6 }
    #expect(Set(server.addresses).count == 6)
    for (listener, (request, answer)) in ExampleTests.exchanges.enumerated() {
      let whole = try server.connect(listener: listener)
      try whole.send(request + request + request)
      #expect(try whole.receive(exactly: 3 * answer.count) == answer + answer + answer)
      let bytewise = try server.connect(listener: listener)
      bytewise.setNoDelay()
      for byte in request + request { try bytewise.send([byte]) }
      try bytewise.halfClose()
      #expect(try bytewise.receiveUntilEnd() == answer + answer)
    }
    try server.stop()
  }

  // MARK: All of them

  @Test func `every example loads, and says how to try it`() throws {
    let names = try FileManager.default.contentsOfDirectory(atPath: ProjectFiles.path("examples")).sorted()
    #expect(names.count >= 8)
    for name in names {
      let result = try MoonportProcess.runTool(["check", ProjectFiles.path("examples/\(name)")])
      #expect(result.status == .exited(0), "\(name): \(result)")
      let text = try ProjectFiles.text("examples/\(name)")
      #expect(text.hasPrefix("-- ") && text.contains("scripts/run examples/\(name)"), "\(name) must say how to try it")
    }
  }
}
