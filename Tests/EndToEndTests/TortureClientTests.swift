// Clients that leave, break off, flood or lie about lengths. Each attack has its expected outcome; scripts/torture runs them.
// MOONPORT_LONG=1 makes them as large as the project's figures ask for.
//
// Must never know: anything but the program's command line, its streams and its sockets.

import Glibc
import TestSupport
import Testing

@Suite(.serialized) struct TortureClientTests {
  private static let echo = "function h.on_message(conn, text) conn:send(text) end"

  // MARK: Leaving

  @Test func `half-close, then wait: every client gets its answer and then the end`() throws {
    let server = try MoonportProcess.serving(
      "function h.on_message(conn, text) sleep(0.1) conn:send(text) end", workers: 2)
    let count = isLongRun ? 500 : 100
    try Siege(name: "half-close then wait", server: server).withstand {
      let clients = try (0..<count).map { _ in try server.connect() }
      for (index, client) in clients.enumerated() {
        try client.send("\(index)\n")
        try client.halfClose()
      }
      for (index, client) in clients.enumerated() { #expect(try client.receiveTextUntilEnd() == "\(index)\n") }
      return "\(count) of \(count) answered, then ended"
    }
  }

  @Test func `disconnecting a client that still sends 1 MB: it gets the last reply whole and a clean end`() throws {
    let server = try MoonportProcess.serving(
      "local reply = ('r'):rep(20000)\nfunction h.on_message(conn, text) conn:send(reply) conn:close() end", workers: 2)
    let megabyte = [UInt8](repeating: UInt8(ascii: "n"), count: 1 << 20)
    let rounds = isLongRun ? 100 : 15
    try Siege(name: "disconnect while the client sends 1 MB", server: server).withstand {
      try inParallel(4, timeout: Patience.scaled(60)) { _ in
        for _ in 0..<rounds {
          let client = try server.connect()
          try client.send("go\n")
          try client.send(megabyte)
          let reply = try client.receiveUntilEnd()
          if reply.count != 20_001 { throw TestFailure("\(reply.count) bytes came") }
        }
      }
      return "\(4 * rounds) of \(4 * rounds) got the reply and no reset"
    }
  }

  @Test func `resets in mid-message, then 100 broadcasts: everybody else gets all of them in order`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_open(conn) conn:join("room") end
      function h.on_message(conn, text)
        if text == "go" then for i = 1, 100 do moonport.broadcast(i, { room = "room" }) end end
      end
      """, workers: 2)
    let expected = (1...100).map { "\($0)" }
    try Siege(name: "reset in mid-message, then 100 broadcasts", server: server).withstand {
      let listeners = try (0..<10).map { _ in try server.connect() }
      let victims = try (0..<50).map { _ in try server.connect() }
      try eventually("all are there") { try server.status()["connections"].integer == 60 }
      for victim in victims { try victim.send("half of a mess") }
      for victim in victims { victim.reset() }
      try listeners[0].send("go\n")
      for listener in listeners { #expect(try listener.receiveLines(100) == expected) }
      return "50 resets; 10 of 10 got 100 broadcasts in order"
    }
  }

  @Test func `storms of clients that connect and reset, or connect and leave: nobody else notices`() throws {
    let server = try MoonportProcess.serving(TortureClientTests.echo, workers: 2)
    let bystander = try server.connect()
    let storm = isLongRun ? 20_000 : 1_000
    try Siege(name: "connect-and-reset storm", server: server, standing: 1).withstand {
      try inParallel(2, timeout: Patience.scaled(120)) { thread in
        for index in 0..<storm {
          let client = try server.connect()
          if index % 10 == 0 { _ = try? client.trySend(Array("half".utf8)) }
          thread == 0 ? client.reset() : client.close()
        }
      }
      #expect(try bystander.ask("still here") == "still here")
      #expect(try server.connect().ask("new") == "new")
      return "\(2 * storm) came and went"
    }
  }

  // MARK: Flooding

  @Test func `10,000 pipelined requests in one write: all answered after a half-close, none harmful after a close`()
    throws
  {
    let server = try MoonportProcess.serving(TortureClientTests.echo, workers: 2)
    let lines = (1...10_000).map { "\($0)" }
    let requests = lines.map { $0 + "\n" }.joined()
    try Siege(name: "10,000 pipelined requests, then close", server: server).withstand {
      let patient = try server.connect()
      try patient.send(requests)
      try patient.halfClose()
      #expect(try patient.receiveTextUntilEnd() == requests)
      for _ in 0..<10 {
        let rude = try server.connect()
        _ = try rude.trySend(Array(requests.utf8))
        rude.close()
      }
      return "10,000 of 10,000 answered"
    }
  }

  @Test func `a line without end is cut off at the codec's bound, and costs no more memory than that`() throws {
    let server = try MoonportProcess.serving(
      TortureClientTests.echo + "\nfunction h.on_close(conn, reason) print('closed ' .. reason) end", workers: 2)
    let part = [UInt8](repeating: UInt8(ascii: "x"), count: 65_536)
    try Siege(name: "a line without end", server: server).withstand {
      let before = server.outputCount(of: "closed too long\n")
      for _ in 0..<20 {
        let client = try server.connect()
        var sent = 0
        // Up to 16 MB, or until the server has had enough.
        while sent < 16 << 20, let count = try? client.trySend(part) {
          sent += count
          if count == 0, (try? client.tryReceive(for: 0.01)) ?? [1] == [] { break }
        }
      }
      try eventually("all were cut off") { server.outputCount(of: "closed too long\n") == before + 20 }
      return "20 of 20 closed, \"too long\""
    }
  }

  // MARK: Lies

  /// Listeners by their place in `lyingServer`, and what is sent to them.
  private static let lies: [(listener: Int, bytes: [UInt8])] = [
    // 2^31, 2^32 - 1 (or -1) and -2^31 + 1 in four bytes, big and little endian; then with 8 subtracted from small ones.
    (0, [0x80, 0, 0, 0]), (0, [0xff, 0xff, 0xff, 0xff]), (0, [0x80, 0, 0, 1]), (1, [0, 0, 0, 0x80]),
    (1, [0xff, 0xff, 0xff, 0xff]), (2, [0, 0, 0, 0]), (2, [0, 0, 0, 3]),
    // 2^31, 2^32, 2^63 - 1, 2^63, -1, -2^63 + 1 in eight bytes, and sums that run over.
    (3, [0, 0, 0, 0, 0x80, 0, 0, 0]), (3, [0, 0, 0, 1, 0, 0, 0, 0]), (3, [0x7f] + [UInt8](repeating: 0xff, count: 7)),
    (3, [0x80, 0, 0, 0, 0, 0, 0, 0]), (3, [UInt8](repeating: 0xff, count: 8)), (3, [0x80, 0, 0, 0, 0, 0, 0, 1]),
    (4, [UInt8](repeating: 0xff, count: 7) + [0x7f]), (4, [0, 0, 0, 0, 0, 0, 0, 0x80]),
    (4, [UInt8](repeating: 0xff, count: 8)),
    (5, Array("2147483648:".utf8)), (5, Array("4294967296:".utf8)), (5, Array("9223372036854775808:".utf8)),
    (5, Array("-1:".utf8)), (5, Array("18446744073709551616:".utf8)), (5, Array("99999999999999999999999999".utf8)),
    (5, Array("1:ab".utf8)),
  ]

  private func lyingServer() throws -> MoonportProcess {
    let codecs = [
      "{ type = 'length', size = 4 }", "{ type = 'length', size = 4, endian = 'little' }",
      "{ type = 'length', size = 4, adjustment = -8 }", "{ type = 'length', size = 8 }",
      "{ type = 'length', size = 8, endian = 'little', adjustment = 100 }", "'netstring'",
    ]
    let listeners = codecs.map { "moonport.listen { address = '127.0.0.1:0', codec = \($0) }\n" }.joined()
    return try MoonportProcess(
      script: """
        local moonport = require 'moonport'
        \(listeners)
        return {
          on_message = function(conn, text) conn:send(text) end,
          on_close = function(conn, reason) print('closed ' .. reason) end,
        }
        """
    ) {
      $0.listeners = codecs.count
      $0.workers = 1
    }
  }

  @Test func `lengths of 2^31, 2^32, 2^63 and negative ones end the connection and reserve nothing`() throws {
    let server = try lyingServer()
    try Siege(name: "lengths of 2^31, 2^32, 2^63, negative", server: server).withstand {
      let before = server.outputCount(of: "closed ")
      let clients = try TortureClientTests.lies.map { lie in
        let client = try server.connect(listener: lie.listener)
        try client.send(lie.bytes)
        return client
      }
      for client in clients { #expect(try client.waitForEnd() == .closed) }
      let count = TortureClientTests.lies.count
      try eventually("each ended") { server.outputCount(of: "closed ") == before + count }
      let ends = server.outputCount(of: "closed too long\n") + server.outputCount(of: "closed error\n")
      #expect(ends == server.outputCount(of: "closed "))
      return "\(count) of \(count) closed, \"too long\" or \"error\""
    }
  }

  // MARK: Strangers

  @Test func `descriptors that are reused inside one batch never carry one client's bytes to another`() throws {
    let server = try MoonportProcess.serving(
      """
      local all = {}
      function h.on_open(conn) all[conn] = true end
      function h.on_close(conn) all[conn] = nil end
      function h.on_message(conn, text)
        if text == "nap" then local till = os.clock() + 0.03 while os.clock() < till do end end
        if text == "kill" then for other in pairs(all) do if other ~= conn then other:abort() end end end
        conn:send(text)
      end
      """, workers: 1)
    let rounds = isLongRun ? 200 : 15
    try Siege(name: "descriptor reuse inside a batch", server: server).withstand {
      for round in 0..<rounds {
        let killer = try server.connect()
        let victims = try (0..<20).map { _ in try server.connect() }
        try eventually("all are there") { try server.status()["connections"].integer == 21 }
        // All that is sent during the nap is in the batch that follows it.
        try killer.send("nap\n")
        if round % 2 == 0 { try killer.send("kill\n") }
        for (index, victim) in victims.enumerated() { try victim.send("victim \(index)\n") }
        if round % 2 == 1 { try killer.send("kill\n") }
        let newcomers = try (0..<20).map { _ in try server.connect() }
        for (index, newcomer) in newcomers.enumerated() { try newcomer.send("newcomer \(index)\n") }
        for (index, newcomer) in newcomers.enumerated() {
          // One that came before the killing is a victim too.
          guard let answer = try? newcomer.receiveLine() else { continue }
          #expect(answer == "newcomer \(index)")
        }
        for (index, victim) in victims.enumerated() {
          if let answer = try? victim.receiveLine() { #expect(answer == "victim \(index)") }
        }
        #expect(try killer.receiveLines(2) == ["nap", "kill"])
      }
      return "\(rounds) rounds of 20 killed and 20 new ones, no stray byte"
    }
  }
}
