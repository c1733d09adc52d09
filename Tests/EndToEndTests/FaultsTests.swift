// The faults that the classic completion-port programs are known for, and those that a busy server gets from its clients'
// comings and goings: a test for each shows that the built program does not have it.
//
// Must never know: anything but the program's command line, its streams and its sockets.

import Glibc
import TestSupport
import Testing

@Suite struct FaultsTests {
  private static let echo = "function h.on_message(conn, text) conn:send(text) end"

  // MARK: The old programs

  @Test func `no fixed buffer: a short text is answered with as many bytes, and a long one whole`() throws {
    let server = try MoonportProcess.serving(FaultsTests.echo)
    let client = try server.connect()
    for length in [0, 1, 3, 199, 200, 201, 255, 256, 257, 4095, 4096, 4097, 65_535, 65_536] {
      let text = String(repeating: "m", count: length)
      #expect(try client.ask(text) == text)
      #expect(try client.tryReceive(for: 0) == nil)
    }
  }

  @Test func `no leak when the server closes first: descriptors and memory stay flat over thousands`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_open(conn) conn:join("room") conn.ctx.data = ("x"):rep(1000) end
      function h.on_message(conn, text) conn:send(text) conn:close() end
      """)
    func round(_ count: Int) throws {
      for index in 0..<count {
        let client = try server.connect()
        #expect(try client.ask("\(index)") == "\(index)")
        #expect(try client.waitForEnd() == .closed)
      }
    }
    try round(1500)
    let descriptors = try server.descriptorCount()
    let resident = try server.residentBytes()
    try round(3000)
    try eventually("all descriptors are closed") { try server.descriptorCount() <= descriptors }
    #expect(try server.residentBytes() - resident < 2_000_000)
  }

  @Test func `no leak when clients leave in any way, with input and output pending`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_open(conn) conn:join("room" .. conn.id % 100) end
      function h.on_message(conn, text)
        for _ = 1, 30 do conn:write(("x"):rep(10000)) end
        if text == "wait" then conn:receive() end
      end
      """)
    func round(_ count: Int) throws {
      for index in 0..<count {
        let client = try TestClient(server.address, receiveBufferBytes: 4096)
        _ = try client.trySend(Array((index % 2 == 0 ? "wait\nhalf of a line" : "go\nhalf").utf8))
        if index % 3 == 0 { _ = try client.tryReceive(for: 0.001) }
        index % 5 == 0 ? client.close() : client.reset()
      }
      try eventually("all are gone") { contains(try server.control("status", "--json").output, "\"connections\":0") }
    }
    try round(500)
    let descriptors = try server.descriptorCount()
    let resident = try server.residentBytes()
    try round(1000)
    try eventually("all descriptors are closed") { try server.descriptorCount() <= descriptors }
    #expect(try server.residentBytes() - resident < 4_000_000)
  }

  @Test func `a client that connects and resets at once does not stop the accepting`() throws {
    let server = try MoonportProcess.serving(FaultsTests.echo)
    for _ in 0..<2000 { try server.connect().reset() }
    #expect(try server.connect().ask("x") == "x")
  }

  @Test(arguments: [true, false])
  func `clients that ended, broke or stopped reading while their handlers wait or pause cost no time`(isUnix: Bool)
    throws
  {
    let folder = try TemporaryFolder()
    let server = try MoonportProcess.serving(
      """
      function h.on_message(conn, text)
        if text == "pause" then conn:pause() end
        if text == "sleep" then sleep(1000) end
        if text == "fill" then for _ = 1, 5 do conn:write(("x"):rep(1000000)) end end
        if text == "fill and close" then for _ = 1, 5 do conn:write(("x"):rep(1000000)) end conn:close() end
        if text == "receive" then conn:receive(1000000) end
        if text == "close" then conn:close() end
        if text == "echo" then conn:send(text) end
      end
      """, "codec = 'line', output_limit = { hard = 100000000, soft = 50000000 }",
      address: isUnix ? "unix:\(folder.file("s"))" : MoonportProcess.anyPort, folder: folder)
    var kept: [TestClient] = []
    let backlog = String(repeating: "more\n", count: 20_000)
    for command in ["pause", "sleep", "fill", "fill and close", "receive", "close", "echo"] {
      for rest in ["", "more\nhalf", backlog] {
        for ending in 0..<4 {
          let client = try TestClient(server.address, receiveBufferBytes: 4096)
          _ = try client.trySend(Array("\(command)\n\(rest)".utf8))
          switch ending {
          case 0: client.close()
          case 1: client.reset()
          case 2: try? client.halfClose()
          default: break
          }
          kept.append(client)
        }
      }
    }
    let probe = try server.connect()
    #expect(try probe.ask("echo") == "echo")
    try eventually("the server rests") {
      let before = try server.processorSeconds()
      usleep(100_000)
      return try server.processorSeconds() - before < 0.02
    }
    #expect(try probe.ask("echo") == "echo")
  }

  // MARK: Half-close and close

  @Test(arguments: [0, 1, 100_000, 20_000_000])
  func `a client that half-closes after its request gets the full reply, also when the handler waits first`(
    bytes: Int
  ) throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_message(conn, text)
        if text == "wait" then sleep(0.02) end
        for at = 1, \(bytes), 1000000 do conn:write(("r"):rep(math.min(1000000, \(bytes) - at + 1))) end
        if text == "wait" then sleep(0.02) end
        conn:write("end")
      end
      """, "codec = 'line', output_limit = { hard = 50000000, soft = 50000000 }")
    for request in ["now\n", "wait\n"] {
      for receiveBuffer in [nil, 65536] {
        let client = try TestClient(server.address, receiveBufferBytes: receiveBuffer)
        try client.send(request)
        try client.halfClose()
        let reply = try client.receiveUntilEnd()
        #expect(reply.count == bytes + 3 && reply.suffix(3) == Array("end".utf8)[...])
      }
    }
  }

  @Test func `several requests before a half-close are all answered, in order`() throws {
    let server = try MoonportProcess.serving(
      "function h.on_message(conn, text) if tonumber(text) % 100 == 0 then sleep(0.001) end conn:send(text) end")
    let client = try server.connect()
    let count = 2000
    try client.send((0..<count).map { "\($0)\n" }.joined())
    try client.halfClose()
    for index in 0..<count { #expect(try client.receiveLine() == "\(index)") }
    #expect(try client.receiveLineOrEnd() == nil)
  }

  @Test
  func `a client still sending while the server closes gets the last reply and a clean end, 1,000 times of 1,000`()
    throws
  {
    let server = try MoonportProcess.serving(
      """
      local reply = ("r"):rep(20000)
      function h.on_message(conn, text) if text == "end" then conn:send(reply) conn:close() end end
      """)
    let noise = [UInt8](repeating: UInt8(ascii: "n"), count: 5000) + [10]
    try inParallel(4, timeout: Patience.scaled(60)) { thread in
      for index in 0..<250 {
        let client = try server.connect()
        let before = (index + thread) % 7
        for _ in 0..<before { try client.send(noise) }
        try client.send("end\n")
        // Goes on sending until the end of the server's side is read.
        var sent = 0
        while sent < 300_000, try client.trySend(noise) > 0 { sent += noise.count }
        let reply = try client.receiveUntilEnd()
        if reply.count != 20_001 { throw TestFailure("client \(index) got \(reply.count) bytes") }
        try client.send(noise)
      }
    }
  }

  @Test func `a client that sends all before it reads anything gets a large last reply whole`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_message(conn, bytes)
        for _ = 1, 30 do conn:write(("r"):rep(1000000)) end
        conn:close()
      end
      """, "output_limit = { hard = 50000000, soft = 50000000 }")
    let client = try server.connect()
    try client.send([UInt8](repeating: 1, count: 30_000_000))
    #expect(try client.receiveUntilEnd().count == 30_000_000)
  }

  // MARK: Many messages

  /// A CI-sized run by default; MOONPORT_LONG=1 has one million.
  private static let messagesMax = getenv("MOONPORT_LONG") == nil ? 200_000 : 1_000_000

  @Test(.seeded, arguments: [1, 2])
  func `of many messages over connections that open and close all the time, none is lost, doubled or misdelivered`(
    workers: Int
  ) throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_open(conn) conn.ctx.count = 0 end
      function h.on_message(conn, text)
        local count = conn.ctx.count + 1
        conn.ctx.count = count
        if count % 64 == 0 then sleep(0) end
        if text:byte() == 101 then conn:send(text, " ", count) conn:close() else conn:send(text, " ", count) end
      end
      """, workers: workers)
    let threads = 4
    let perThread = FaultsTests.messagesMax / threads
    let seed = SeededTrait.current
    try inParallel(threads, timeout: Patience.scaled(600)) { thread in
      var random = SeededGenerator(seed: seed &+ UInt64(thread))
      var sent = 0
      var connection = 0
      while sent < perThread {
        connection += 1
        let count = min(Int.random(in: 1...400, using: &random), perThread - sent)
        try FaultsTests.exchange(server, "\(thread)-\(connection)", count, kind: Int.random(in: 0..<3, using: &random))
        sent += count
      }
    }
    let status = try server.control("status", "--json").output
    #expect(contains(status, "\"messages_in\":\(perThread * threads),"))
    #expect(contains(status, "\"messages_out\":\(perThread * threads),"))
    #expect(contains(status, "\"errors\":0"))
  }

  /// Sends `count` messages over one connection that ends by half-close, by the server's close, or by a plain close once all
  /// is answered, and checks each answer.
  private static func exchange(_ server: MoonportProcess, _ name: String, _ count: Int, kind: Int) throws {
    let client = try server.connect()
    var request = ""
    for index in 1...count {
      request += index == count && kind == 1 ? "end \(name) \(index)\n" : "m \(name) \(index)\n"
    }
    try client.send(request)
    if kind == 0 { try client.halfClose() }
    for index in 1...count {
      let expected = (index == count && kind == 1 ? "end" : "m") + " \(name) \(index) \(index)"
      let line = try client.receiveLine()
      if line != expected { throw TestFailure("\"\(line)\" came where \"\(expected)\" was expected") }
    }
    if kind < 2, try client.receiveLineOrEnd() != nil { throw TestFailure("more came than was asked for") }
  }
}
