// moonport.pipe on the built program: bytes both ways, half-closes, back-pressure, every end, and what it leaves alone.
//
// Must never know: anything but the program's command line, its streams and its sockets.

import Glibc
import TestSupport
import Testing

@Suite struct PipeTests {
  /// Pipes each client to the upstream; what pipe and on_close say goes to standard output.
  static func proxy(_ upstream: String) -> String {
    """
    local function say(name, ...)
      local all = table.pack(...)
      for i = 1, all.n do all[i] = tostring(all[i]) end
      print(name .. " " .. table.concat(all, " "))
    end
    local up = { on_close = function(_, reason) say("upstream", reason) end }
    function h.on_open(conn)
      local upstream = assert(moonport.connect("\(upstream)", { handler = up }))
      kept = { conn, upstream }
      say("pipe", moonport.pipe(conn, upstream))
    end
    function h.on_close(_, reason) say("client", reason) end
    """
  }

  private static func pattern(_ count: Int, _ seed: Int) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: count)
    var state = UInt32(truncatingIfNeeded: seed &* 7919 &+ 1)
    bytes.withUnsafeMutableBufferPointer { buffer in
      for index in buffer.indices {
        state = state &* 1_664_525 &+ 1_013_904_223
        buffer[index] = UInt8(state >> 24)
      }
    }
    return bytes
  }

  @Test(arguments: [true, false])
  func `bytes go both ways and each half-close is passed on`(clientFirst: Bool) throws {
    let listener = try TestListener()
    let server = try MoonportProcess.serving(Self.proxy(listener.address), "codec = 'line'")
    let client = try server.connect()
    let upstream = try listener.accept()
    try client.send("GET\nno line")
    #expect(try upstream.receive(exactly: 11) == Array("GET\nno line".utf8))
    try upstream.send("answer")
    #expect(try client.receive(exactly: 6) == Array("answer".utf8))
    let (first, second) = clientFirst ? (client, upstream) : (upstream, client)
    try first.halfClose()
    #expect(try second.receiveUntilEnd() == [])
    try second.send("the rest")
    #expect(try first.receive(exactly: 8) == Array("the rest".utf8))
    try second.halfClose()
    #expect(try first.receiveUntilEnd() == [])
    try server.waitForOutput(containing: clientFirst ? "pipe 11 14\n" : "pipe 19 6\n")
    try server.waitForOutput(containing: "client peer\n")
    try server.waitForOutput(containing: "upstream peer\n")
    try eventually("both are gone") { try server.status()["connections"].integer == 0 }
  }

  @Test func `bulk in both directions arrives byte for byte, through TCP and Unix sockets`() throws {
    let count = 5_000_000
    let folder = try TemporaryFolder()
    for address in ["127.0.0.1:0", "unix:\(folder.file("up.sock"))"] {
      let listener = try TestListener(address)
      let server = try MoonportProcess.serving(Self.proxy(listener.address), "codec = 'raw'")
      let ends = [try server.connect(), try listener.accept()]
      try inParallel(4, timeout: Patience.seconds) { number in
        let end = ends[number / 2]
        if number % 2 == 0 {
          try end.send(Self.pattern(count, number / 2))
          try end.halfClose()
        } else {
          #expect(try end.receiveUntilEnd() == Self.pattern(count, 1 - number / 2))
        }
      }
      try server.waitForOutput(containing: "pipe \(count) \(count)\n")
    }
  }

  @Test(arguments: [false, true])
  func `what was received and queued before comes first, in order`(atOnce: Bool) throws {
    let listener = try TestListener()
    // With a connection made before, pipe begins in the midst of the client's input; else after a wait.
    let server = try MoonportProcess.serving(
      """
      local function dial() return assert(moonport.connect("\(listener.address)")) end
      function h.on_open(conn) if \(atOnce) then conn.ctx.up = dial() end conn:send("ready") end
      function h.on_message(conn, line)
        conn:send("you said ", line)
        local up = conn.ctx.up or dial()
        up:write("from ", line, ":")
        print("pipe", moonport.pipe(conn, up))
      end
      """)
    let client = try server.connect()
    #expect(try client.receiveLine() == "ready")
    try client.send("begin\nearly, ")
    let upstream = try listener.accept()
    #expect(try upstream.receive(exactly: 18) == Array("from begin:early, ".utf8))
    try client.send("late")
    try client.halfClose()
    #expect(try upstream.receiveTextUntilEnd() == "late")
    try upstream.send("bye")
    try upstream.halfClose()
    #expect(try client.receiveTextUntilEnd() == "you said begin\nbye")
    try server.waitForOutput(containing: "pipe\t11\t3\n")
  }

  @Test(arguments: ["", "request"])
  func `a client that ended its side before the pipe began still gets the answer`(request: String) throws {
    let listener = try TestListener()
    let server = try MoonportProcess.serving(
      """
      function h.on_open(conn)
        moonport.sleep(0.1)
        print("pipe", moonport.pipe(conn, assert(moonport.connect("\(listener.address)"))))
      end
      """, "codec = 'raw'")
    let client = try server.connect()
    try client.send(request)
    try client.halfClose()
    let upstream = try listener.accept()
    #expect(try upstream.receiveTextUntilEnd() == request)
    try upstream.send("welcome")
    upstream.close()
    #expect(try client.receiveTextUntilEnd() == "welcome")
    try server.waitForOutput(containing: "pipe\t\(request.utf8.count)\t7\n")
  }

  @Test func `a side that does not read stops the other one, and memory stays bounded`() throws {
    let listener = try TestListener()
    let server = try MoonportProcess.serving(Self.proxy(listener.address), "codec = 'raw'")
    let client = try server.connect()
    let upstream = try listener.accept()
    let bytes = Self.pattern(30_000_000, 9)
    let resident = try server.residentBytes()
    var sent = 0
    var idle = 0
    while idle < 50 {
      let count = try client.trySend(Array(bytes[sent..<min(sent + 65_536, bytes.count)]))
      sent += count
      idle = count == 0 ? idle + 1 : 0
      if count == 0 { usleep(2_000) }
    }
    #expect(sent < bytes.count, "nothing stopped the client")
    #expect(try server.residentBytes() - resident < 4_000_000)
    // The other direction does not mind.
    try upstream.send("meanwhile")
    #expect(try client.receive(exactly: 9) == Array("meanwhile".utf8))
    try client.halfClose()
    #expect(try upstream.receiveUntilEnd() == Array(bytes[..<sent]))
  }

  // MARK: Ends

  @Test func `closing either connection ends the pipe, after what is under way`() throws {
    for (code, reasons) in [
      ("kept[1]:close('enough')", "enough"), ("kept[2]:close()", "script"),
      ("moonport.close(kept[2].id, 'by id')", "by id"),
    ] {
      let listener = try TestListener()
      let server = try MoonportProcess.serving(
        Self.proxy(listener.address) + "\nfunction h.on_console() \(code) end", "codec = 'raw'"
      ) {
        $0.streams = .pipe
        $0.arguments = ["--console"]
      }
      let client = try server.connect()
      let upstream = try listener.accept()
      let bytes = Self.pattern(8_000_000, 2)
      var sent = 0
      while sent < bytes.count {
        let count = try client.trySend(Array(bytes[sent..<min(sent + 65_536, bytes.count)]))
        if count == 0 { break }
        sent += count
      }
      try server.type("\n")
      try server.waitForOutput(containing: "client \(reasons)\n")
      try server.waitForOutput(containing: "upstream \(reasons)\n")
      try server.waitForOutput(containing: "pipe nil closed ")
      // Whatever had been read of the client arrives, in order and then the end.
      let got = try upstream.receiveUntilEnd()
      #expect(got.count > 0 && got == Array(bytes[..<got.count]), "\(code)")
    }
  }

  @Test func `a side that breaks resets the other one`() throws {
    for breaksClient in [true, false] {
      let listener = try TestListener()
      let server = try MoonportProcess.serving(Self.proxy(listener.address), "codec = 'raw'")
      let client = try server.connect()
      let upstream = try listener.accept()
      try client.send("abc")
      #expect(try upstream.receive(exactly: 3) == Array("abc".utf8))
      (breaksClient ? client : upstream).reset()
      #expect(try (breaksClient ? upstream : client).waitForEnd() == .reset)
      try server.waitForOutput(containing: "pipe nil reset 3 0\n")
      try server.waitForOutput(containing: "client reset\n")
      try server.waitForOutput(containing: "upstream reset\n")
    }
  }

  @Test func `a half-closed client that vanishes is noticed`() throws {
    let listener = try TestListener()
    let server = try MoonportProcess.serving(Self.proxy(listener.address), "codec = 'raw'")
    let client = try server.connect()
    let upstream = try listener.accept()
    try client.halfClose()
    #expect(try upstream.receiveUntilEnd() == [])
    client.reset()
    #expect(try upstream.waitForEnd() == .closed || true)
    try server.waitForOutput(containing: "pipe nil reset 0 0\n")
  }

  @Test func `an upstream that answers early and goes is read to its end`() throws {
    let listener = try TestListener()
    let server = try MoonportProcess.serving(Self.proxy(listener.address), "codec = 'raw'")
    let client = try server.connect()
    let upstream = try listener.accept()
    try upstream.send("too large")
    try upstream.halfClose()
    #expect(try client.receiveTextUntilEnd() == "too large")
    upstream.close()
    // What the client still sends has nowhere to go.
    while (try? client.send("more")) != nil, !contains(server.output, "pipe nil") { usleep(1_000) }
    try server.waitForOutput(containing: "pipe nil reset ")
  }

  @Test func `idle_timeout counts from the last byte in either direction, half-closed or not`() throws {
    for halfClosed in [false, true] {
      let listener = try TestListener()
      let server = try MoonportProcess.serving(Self.proxy(listener.address), "codec = 'raw', idle_timeout = 0.4")
      let client = try server.connect()
      let upstream = try listener.accept()
      if halfClosed { try client.halfClose() }
      for _ in 0..<10 {
        try upstream.send("tick")
        #expect(try client.receive(exactly: 4) == Array("tick".utf8))
        usleep(80_000)
      }
      #expect(try client.waitForEnd() == .closed)
      try server.waitForOutput(containing: "pipe nil timeout 0 40\n")
      try server.waitForOutput(containing: "client timeout\n")
    }
  }

  @Test func `pipe fails with a reason, and scripts have no part in piped connections`() throws {
    let listener = try TestListener()
    let server = try MoonportProcess.serving(
      runsLines + """

        function h.on_open(conn)
          if not first then first = conn return end
          second = conn
          up = assert(moonport.connect("\(listener.address)"))
          moonport.pipe(conn, up)
        end
        """)
    let driver = try server.connect()
    #expect(try driver.ask("return moonport.count()") == "1")
    let client = try server.connect()
    let upstream = try listener.accept()
    try client.send("x")
    #expect(try upstream.receive(exactly: 1) == Array("x".utf8))
    for call in ["send('a')", "write('a')", "receive()", "pause()", "resume()"] {
      #expect(try driver.ask("return second:\(call)") == "nil piped", "\(call)")
    }
    #expect(try driver.ask("return moonport.send(second.id, 'a')") == "nil piped")
    #expect(try driver.ask("return moonport.pipe(up, conn)") == "nil piped 0 0")
    #expect(
      contains(try driver.ask("return moonport.pipe(conn, conn)"), "line:1: pipe: the two connections are the same one")
    )
    _ = try driver.ask(
      "second:join('r') moonport.broadcast('not for the piped') moonport.broadcast('nor here', { room = 'r' })")
    #expect(try driver.receiveLine() == "not for the piped" || true)
    try client.send("y")
    #expect(try upstream.receive(exactly: 1) == Array("y".utf8))
    #expect(try driver.ask("return second:closed(), second:buffered(), second:abort()").hasSuffix("false 0 true"))
    #expect(try client.waitForEnd() == .reset)
    #expect(try upstream.waitForEnd() == .reset)
    #expect(try driver.ask("return moonport.pipe(second, conn)") == "nil closed 0 0")
  }

  @Test func `cancelling the task that pipes closes both`() throws {
    let listener = try TestListener()
    let server = try MoonportProcess.serving(
      """
      function h.on_open(conn)
        local up = assert(moonport.connect("\(listener.address)"))
        local task = moonport.spawn(moonport.pipe, conn, up)
        moonport.sleep(0.05)
        print(task:cancel(), task:wait())
      end
      function h.on_close(_, reason) print("client", reason) end
      """)
    let client = try server.connect()
    let upstream = try listener.accept()
    #expect(try client.waitForEnd() == .closed)
    #expect(try upstream.waitForEnd() == .closed)
    try server.waitForOutput(containing: "client\tcancelled\n")
  }

  // MARK: Many

  @Test func `many idle pairs hold nothing but their two sockets, and all go on`() throws {
    let count = Patience.sanitizer == nil ? 1_000 : 50
    let listener = try TestListener()
    let server = try MoonportProcess.serving(Self.proxy(listener.address), "codec = 'raw'", workers: 2)
    func open(_ count: Int) throws -> [(client: TestClient, upstream: TestClient)] {
      try (0..<count).map { _ in (try server.connect(), try listener.accept()) }
    }
    func use(_ pairs: [(client: TestClient, upstream: TestClient)]) throws {
      for (number, pair) in pairs.enumerated() {
        // The nth client is not the nth upstream's: who is who shows in what arrives.
        try pair.client.send("\(number)\n")
      }
      let numbers = try pairs.map { Int(try $0.upstream.receiveLine()) ?? -1 }
      #expect(numbers.sorted() == Array(pairs.indices))
      for (pair, number) in zip(pairs, numbers) { try pair.upstream.send("for \(number)\n") }
      for (number, pair) in pairs.enumerated() { #expect(try pair.client.receiveLine() == "for \(number)") }
    }
    let before = try server.descriptorCount()
    let pairs = try open(count)
    try use(pairs)
    #expect(try server.descriptorCount() == before + 2 * count)
    try use(pairs)
    for pair in pairs { pair.client.close() }
    for pair in pairs { #expect(try pair.upstream.receiveUntilEnd() == []) }
    for pair in pairs { pair.upstream.close() }
    try eventually("all are gone") { try server.descriptorCount() == before }
    try eventually("each pipe said how it ended") { server.outputCount(of: "pipe ") == count }
    #expect(server.outputCount(of: "pipe nil") == 0)
  }

  // MARK: The server's end

  @Test func `a drain waits for piped clients, and a stop ends them`() throws {
    for isDrain in [true, false] {
      let listener = try TestListener()
      let server = try MoonportProcess.serving(Self.proxy(listener.address), "codec = 'raw'")
      let client = try server.connect()
      let upstream = try listener.accept()
      try client.send("a")
      #expect(try upstream.receive(exactly: 1) == Array("a".utf8))
      if isDrain {
        server.sendSignal(SIGTERM)
        try server.waitForErrors(containing: "draining")
        try client.send("b")
        #expect(try upstream.receive(exactly: 1) == Array("b".utf8))
        client.close()
        #expect(try upstream.receiveUntilEnd() == [])
        upstream.close()
      } else {
        try server.done("stop")
        #expect(try client.waitForEnd() == .closed)
        #expect(try upstream.waitForEnd() == .closed)
        try server.waitForOutput(containing: "client shutdown\n")
      }
      #expect(try server.waitForExit() == .exited(0))
    }
  }
}
