// Outgoing connections and pipes across reloads: they stay, with handlers of the right code, and leave nothing behind.
//
// Must never know: anything but the program's command line, its streams and its sockets.

import TestSupport
import Testing

@Suite struct ReloadOutgoingTests {
  private func older(_ server: MoonportProcess) throws -> Int? {
    try server.status()["handlers_on_older_generations"].integer
  }

  @Test("a pipe outlives every reload, also after the coroutine that waits for it has ended, and then closes by itself")
  func pipes() throws {
    let listener = try TestListener()
    func proxy(_ version: String) -> String {
      script(
        version, codec: "\"raw\"",
        """
        function handlers.on_open(conn)
          local up = assert(moonport.connect("\(listener.address)"))
          print("piped", pcall(moonport.pipe, conn, up))
        end
        function handlers.on_close(conn, reason) print("closed by", handlers.version, reason) end
        """)
    }
    func uncaught(_ version: String) -> String {
      proxy(version).replacing("print(\"piped\", pcall(moonport.pipe, conn, up))", with: "moonport.pipe(conn, up)")
    }
    for protected in [true, false] {
      let server = try MoonportProcess(serving: protected ? proxy("1") : uncaught("1"), workers: 2)
      let client = try server.connect()
      let upstream = try listener.accept()
      for version in 2...6 {
        try client.send("to")
        #expect(try upstream.receive(exactly: 2) == Array("to".utf8))
        try upstream.send("fro")
        #expect(try client.receive(exactly: 3) == Array("fro".utf8))
        try server.reload(protected ? proxy("\(version)") : uncaught("\(version)"))
        #expect(try older(server) == (version == 2 ? 1 : 0))
      }
      if protected { try server.waitForOutput(containing: "piped\tfalse\treloaded\n") }
      try client.send("last")
      try client.halfClose()
      #expect(try upstream.receiveTextUntilEnd() == "last")
      try upstream.send("words")
      upstream.close()
      #expect(try client.receiveTextUntilEnd() == "words")
      try server.waitForOutput(containing: "closed by\t6\tpeer\n")
      try eventually("both are gone") { try server.status()["connections"].integer == 0 }
      let status = try server.status()
      #expect(status["errors"].integer == 0)
      #expect(status["bytes_in"].integer == 5 * 5 + 9)
      #expect(!contains(server.errors, "reloaded"), "the log has an error that is none")
      try server.stop()
    }
  }

  @Test("a handler table under two names becomes the new code's, whichever of them its connection goes by")
  func twoNames() throws {
    let listener = try TestListener()
    func text(_ version: String) -> String {
      script(
        version,
        """
        local up = { on_message = function(c, text) c:send("\(version) ", text) end }
        for number = 1, 9 do handlers["name" .. number] = up end
        function handlers.on_message(conn, text)
          moonport.connect("\(listener.address)", { codec = "line", handler = up })
        end
        """)
    }
    let server = try MoonportProcess(serving: text("1"), workers: 1)
    try server.connect().send("go\n")
    let peer = try listener.accept()
    for version in 2...9 {
      try server.reload(text("\(version)"))
      #expect(try peer.ask("x") == "\(version) x")
    }
  }

  @Test(
    "what came while an outgoing connection had no on_message is handed over when a reload brings one",
    arguments: [false, true])
  func unheard(hasEnded: Bool) throws {
    let listener = try TestListener()
    func text(_ handler: String) -> String {
      script(
        "1",
        """
        local upstream = {}
        \(handler)
        function upstream.on_close(c, reason) print("closed " .. reason) end
        handlers.upstream = upstream
        function handlers.on_start()
          if not moonport.shared("once"):add("dialled", 1) then return end
          moonport.connect("\(listener.address)", { codec = "line", handler = upstream })
        end
        """)
    }
    let server = try MoonportProcess(serving: text(""), workers: 1)
    let peer = try listener.accept()
    // More than is kept for it, unless it ends.
    let lines = (1...(hasEnded ? 2 : 20_000)).map { "line \($0)\n" }.joined()
    let sender = TestThread {
      try peer.send(lines)
      if hasEnded { try peer.halfClose() }
    }
    try eventually("it has come") { try server.status()["bytes_in"].integer ?? 0 >= min(lines.utf8.count, 65_536) }
    if hasEnded { try sender.join() }
    try server.reload(text("function upstream.on_message(c, text) print(text) end"))
    try sender.join()
    try server.waitForOutput(containing: hasEnded ? "closed peer\n" : "line 20000\n")
    #expect(server.output == lines + (hasEnded ? "closed peer\n" : ""))
  }

  @Test("handlers in a table that the script returns become the new code's; any others stay with their connection")
  func handlers() throws {
    let listener = try TestListener()
    func text(_ version: String, named: Bool = true) -> String {
      script(
        version,
        """
        local upstream = {}
        function upstream.on_message(c, text) c:send("named \(version) ", text) end
        function upstream.on_close(c, reason) print("named \(version) " .. reason) end
        \(named ? "handlers.upstream = upstream" : "")
        local function own(c, text) c:send("own \(version) ", text) end
        function handlers.on_message(conn, text)
          if text == "named" then moonport.connect("\(listener.address)", { codec = "line", handler = upstream })
          elseif text == "own" then moonport.connect("\(listener.address)", { codec = "line", handler = { on_message = own } })
          elseif text == "self" then moonport.connect("\(listener.address)", { codec = "line", handler = handlers })
          else conn:send("\(version) ", text) end
        end
        """)
    }
    let server = try MoonportProcess(serving: text("1"), workers: 1)
    let client = try server.connect()
    func dial(_ kind: String) throws -> TestClient {
      try client.send(kind + "\n")
      return try listener.accept()
    }
    let named = try dial("named")
    let own = try dial("own")
    let itself = try dial("self")
    #expect(try named.ask("a") == "named 1 a")
    #expect(try own.ask("a") == "own 1 a")
    #expect(try itself.ask("a") == "1 a")
    try server.reload(text("2"))
    #expect(try named.ask("b") == "named 2 b")
    #expect(try own.ask("b") == "own 1 b")
    #expect(try itself.ask("b") == "2 b")
    let second = try dial("named")
    #expect(try second.ask("b") == "named 2 b")
    // The new code has no table of that name: the functions stay.
    try server.reload(text("3", named: false))
    for version in 4...6 {
      #expect(try named.ask("c") == "named 2 c")
      #expect(try own.ask("c") == "own 1 c")
      #expect(try itself.ask("c") == "\(version - 1) c")
      try server.reload(text("\(version)"))
    }
    #expect(try dial("named").ask("d") == "named 6 d")
    named.close()
    second.close()
    try eventually("on_close of both was called") { occurrences(of: "named 2 peer\n", in: server.output) == 2 }
  }

  @Test("a suspended connect goes on over one reload and is ended by the next")
  func connecting() throws {
    let deaf = try DeafListener()
    func text(_ version: String) -> String {
      script(
        version,
        """
        function handlers.on_message(conn, text)
          conn:send("waits")
          conn:send(tostring(select(2, pcall(moonport.connect, "\(deaf.address)", { timeout = 100 }))))
        end
        """)
    }
    let server = try MoonportProcess(serving: text("1"), workers: 1)
    let client = try server.connect()
    #expect(try client.ask("go") == "waits")
    let descriptors = try server.descriptorCount()
    try server.reload(text("2"))
    #expect(try older(server) == 1)
    try server.reload(text("3"))
    #expect(contains(try client.receiveLine(), "reloaded"))
    #expect(try server.descriptorCount() == descriptors - 1)
    try server.stop()
  }

  @Test("nothing is left of reloads with outgoing connections, their handlers and pipes alive")
  func leaks() throws {
    let rounds = isLongRun ? 1_000 : 60
    let listener = try TestListener()
    func text(_ version: Int) -> String {
      script(
        "\(version)",
        """
        handlers.up = { on_message = function(c, text) c:send("up \(version) ", text) end }
        local ballast = {}
        for i = 1, 2000 do ballast[i] = { i } end
        function handlers.on_message(conn, text)
          if text == "pipe" then return moonport.pipe(conn, assert(moonport.connect("\(listener.address)"))) end
          local c = moonport.connect("\(listener.address)", { codec = "line", handler = handlers.up })
          if text == "short" then c:close() end
        end
        """)
    }
    let server = try MoonportProcess(serving: text(0), workers: 2)
    let clients = try server.connect(4)
    try clients[0].send("pipe\n")
    let piped = try listener.accept()
    try clients[1].send("keep\n")
    let kept = try listener.accept()
    var resident = 0
    var descriptors = 0
    for round in 1...rounds {
      try server.reload(text(round))
      try clients[2].send("short\n")
      #expect(try listener.accept().waitForEnd() == .closed)
      #expect(try kept.ask("x") == "up \(round) x")
      try clients[0].send("y")
      #expect(try piped.receive(exactly: 1) == Array("y".utf8))
      if round == rounds / 2 {
        resident = try server.residentBytes()
        descriptors = try server.descriptorCount()
      }
    }
    #expect(try server.residentBytes() - resident < 8_000_000)
    try eventually("the short ones are gone") { try server.descriptorCount() <= descriptors }
    try server.stop()
  }
}

extension String {
  /// The text with every `part` replaced.
  fileprivate func replacing(_ part: String, with new: String) -> String {
    var text = self
    while let range = text.firstRange(of: part) { text.replaceSubrange(range, with: new) }
    return text
  }
}
