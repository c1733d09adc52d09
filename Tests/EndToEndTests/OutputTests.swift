// What waits for clients that do not read, on the built program: the four policies of output_limit, and the others' undisturbed
// service.
//
// Must never know: anything but the program's command line, its streams and its sockets.

import Glibc
import TestSupport
import Testing

@Suite struct OutputTests {
  /// Numbered lines of 1,000 bytes, LF included, broadcast as a client asks for them.
  private static let announcer = """
    local number = 0
    function h.on_message(conn, text)
      local count = tonumber(text:match("^broadcast (%d+)$"))
      if count then
        for _ = 1, count do
          number = number + 1
          moonport.broadcast(("%08d"):format(number) .. ("x"):rep(991), { room = "all" })
        end
        conn:write("done " .. number .. "\\n")
      elseif text == "join" then
        conn:join("all")
        conn:send("joined")
      elseif text == "buffered" then
        conn:send(moonport.count("all"))
      else
        conn:send(text)
      end
    end
    function h.on_drain(conn) print("drained") end
    function h.on_close(conn, reason) print("closed " .. reason) end
    """

  private static func number(_ line: String) -> Int { Int(line.prefix(8)) ?? -1 }

  /// A client in the room "all" that takes little into its own buffer.
  private static func member(_ server: MoonportProcess, receiveBufferBytes: Int? = nil) throws -> TestClient {
    let client = try TestClient(server.address, receiveBufferBytes: receiveBufferBytes)
    _ = try client.ask("join")
    return client
  }

  @Test(arguments: [1, 2])
  func `a client that never reads is cut at its output limit while a broadcast goes on, and others miss nothing`(
    workers: Int
  ) throws {
    let server = try MoonportProcess.serving(
      OutputTests.announcer, "codec = 'line', output_limit = { hard = 1000000, soft = 500000 }", workers: workers)
    let deaf = try OutputTests.member(server, receiveBufferBytes: 4096)
    let readers = try (0..<4).map { _ in try OutputTests.member(server) }
    let sender = try server.connect()
    let rounds = 100
    let perRound = 200
    // A round is less than the limit, and the next one begins when the readers have it: only the deaf one falls behind.
    for round in 1...rounds {
      #expect(try sender.ask("broadcast \(perRound)") == "done \(round * perRound)")
      for expected in (round - 1) * perRound + 1...round * perRound {
        for reader in readers {
          let number = OutputTests.number(try reader.receiveLine())
          if number != expected { throw TestFailure("\(number) came where \(expected) was expected") }
        }
      }
    }
    try server.waitForOutput(containing: "closed overflow\n")
    #expect(server.output == "closed overflow\n")
    #expect(try deaf.waitForEnd() == .reset)
  }

  @Test func `a queue over its soft limit for soft_seconds ends with "overflow", and one that drains in time does not`()
    throws
  {
    let server = try MoonportProcess.serving(
      OutputTests.announcer,
      "codec = 'line', output_limit = { hard = 50000000, soft = 100000, soft_seconds = \(Patience.scaled(2)) }")
    let deaf = try OutputTests.member(server, receiveBufferBytes: 4096)
    let late = try OutputTests.member(server)
    let sender = try server.connect()
    #expect(try sender.ask("broadcast 20000") == "done 20000")
    for expected in 1...20_000 { #expect(OutputTests.number(try late.receiveLine()) == expected) }
    try server.waitForOutput(containing: "closed overflow\n")
    #expect(try late.ask("still here") == "still here")
    try server.waitForOutput(containing: "drained\n")
    _ = deaf
  }

  @Test func `"drop_newest" keeps what is queued and drops what does not fit, and send says so`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_message(conn, text)
        local sent, refused = 0, 0
        for number = 1, 12000 do
          local ok, reason = conn:send(("%08d"):format(number), ("x"):rep(991))
          if ok then sent = sent + 1 else assert(ok == nil and reason == "overflow") refused = refused + 1 end
        end
        assert(conn:buffered() <= 1000000)
        print(sent .. " " .. refused)
      end
      function h.on_drain(conn) conn:send("drained") end
      """, "codec = 'line', output_limit = { hard = 1000000, soft = 500000, policy = 'drop_newest' }")
    let client = try TestClient(server.address, receiveBufferBytes: 4096)
    try client.send("go\n")
    try server.waitForOutput(containing: "\n")
    let counts = server.output.split { $0 == " " || $0 == "\n" }.compactMap { Int($0) }
    #expect(counts[0] + counts[1] == 12_000 && counts[1] > 0 && counts[0] >= 1_000)
    // Which ones were refused depends on when the kernel took some; those that came are whole and in order.
    var last = 0
    for _ in 0..<counts[0] {
      let line = try client.receiveLine()
      #expect(line.utf8.count == 999 && OutputTests.number(line) > last)
      last = OutputTests.number(line)
    }
    #expect(try client.receiveLine() == "drained")
  }

  @Test func `"drop_oldest" drops whole old messages, and the newest always arrive`() throws {
    let server = try MoonportProcess.serving(
      OutputTests.announcer, "codec = 'line', output_limit = { hard = 1000000, soft = 500000, policy = 'drop_oldest' }")
    let slow = try OutputTests.member(server, receiveBufferBytes: 4096)
    let sender = try server.connect()
    #expect(try sender.ask("broadcast 12000") == "done 12000")
    var last = 0
    var count = 0
    while last < 12_000 {
      let line = try slow.receiveLine()
      #expect(line.utf8.count == 999 && OutputTests.number(line) > last)
      last = OutputTests.number(line)
      count += 1
    }
    // About 1,000 were queued at the end, and they are the latest without a gap.
    #expect(count > 999 && count < 12_000)
    #expect(try slow.ask("well") == "well")
    #expect(server.outputCount(of: "closed") == 0)
  }

  @Test func `a message larger than the hard limit is refused under every policy, and only "close" ends the client`()
    throws
  {
    for policy in ["close", "drop_newest", "drop_oldest", "pause"] {
      let server = try MoonportProcess.serving(
        """
        function h.on_message(conn, text)
          local ok, reason = conn:send(("x"):rep(1001))
          print(tostring(ok) .. " " .. reason .. " " .. tostring(conn:closed()))
          conn:send(text)
        end
        """, "codec = 'line', output_limit = { hard = 1000, soft = 500, policy = '\(policy)' }")
      let client = try server.connect()
      try client.send("after\n")
      try server.waitForOutput(containing: "nil overflow \(policy == "close")\n")
      if policy == "close" {
        #expect(try client.waitForEnd() == .reset)
      } else {
        #expect(try client.receiveLine() == "after")
      }
    }
  }

  @Test func `"pause" stops reading a client over its soft limit, and loses nothing`() throws {
    let server = try MoonportProcess.serving(
      """
      local handled = 0
      function h.on_message(conn, text)
        if text == "report" then return conn:send(handled) end
        handled = handled + 1
        assert(conn:send(text, ("x"):rep(9000)))
      end
      """, "codec = 'line', output_limit = { hard = 8000000, soft = 300000, policy = 'pause' }")
    let client = try TestClient(server.address, receiveBufferBytes: 4096)
    let other = try server.connect()
    let count = 3000
    let sender = TestThread { for index in 0..<count { try client.send("\(index) \n") } }
    var before = -1
    try eventually("the server stops handling its messages") {
      let handled = Int(try other.ask("report")) ?? 0
      defer { before = handled }
      usleep(20_000)
      return handled == before && handled > 0
    }
    #expect(before < count)
    for index in 0..<count { #expect(try client.receiveLine().hasPrefix("\(index) x")) }
    try sender.join()
    #expect(try other.ask("report") == "\(count)")
  }

  @Test func `one slow client blocks nobody`() throws {
    let server = try MoonportProcess.serving(
      OutputTests.announcer, "codec = 'line', output_limit = { hard = 100000000, soft = 100000000 }")
    let slow = try OutputTests.member(server, receiveBufferBytes: 4096)
    let sender = try server.connect()
    #expect(try sender.ask("broadcast 20000") == "done 20000")
    let quick = try server.connect()
    for index in 0..<200 { #expect(try quick.ask("\(index)") == "\(index)") }
    for expected in 1...20_000 { #expect(OutputTests.number(try slow.receiveLine()) == expected) }
  }

  @Test func `a large broadcast is shared, and each client gets it framed by its own codec`() throws {
    let server = try MoonportProcess(
      script: """
        local moonport = require "moonport"
        moonport.listen { address = "127.0.0.1:0", codec = "line", output_limit = { hard = 60000000, soft = 60000000 } }
        moonport.listen { address = "127.0.0.2:0", codec = { type = "length", size = 4, max_length = 4000000 } }
        return { on_message = function(conn, text)
          for i = 1, 40 do moonport.broadcast(("%02d"):format(i) .. ("x"):rep(999998)) end
        end }
        """
    ) {
      $0.listeners = 2
      $0.workers = 2
    }
    let clients = try (0..<6).map { index in
      try server.connect(listener: index < 5 ? 0 : 1)
    }
    try eventually("all are counted") { contains(try server.control("status", "--json").output, "\"connections\":6") }
    let before = try server.residentBytes()
    let fixed = TestThread {
      for _ in 1...40 {
        let header = try clients[5].receive(exactly: 4)
        #expect(header == [0, 0x0f, 0x42, 0x40])
        _ = try clients[5].receive(exactly: 1_000_000)
      }
    }
    try clients[0].send("go\n")
    try fixed.join()
    // 150 MB wait for five clients, and 50 MB in the kernel; shared, they are 40 MB.
    #expect(try server.residentBytes() - before < 100_000_000)
    for client in clients[0..<5] {
      for index in 1...40 {
        let line = try client.receive(exactly: 1_000_001)
        #expect(
          String(decoding: line[0..<2], as: UTF8.self) == (index < 10 ? "0\(index)" : "\(index)") && line.last == 10)
      }
    }
  }
}
