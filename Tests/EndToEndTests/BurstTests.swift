// What a client may have by sending much at once, and a script by sending much to who does not read: no more of a turn, of its rate
// and of the memory than one that takes it slowly.
//
// Must never know: anything but the program's command line, its streams and its sockets.

import TestSupport
import Testing

@Suite struct BurstTests {
  @Test(arguments: ["", "sleep(0.1)"])
  func `a loop over receive leaves others their turns, however much has come`(wait: String) throws {
    let server = try MoonportProcess.serving(
      """
      local run, most = 0, 0
      function h.on_start() moonport.spawn(function() while true do coroutine.yield() run = 0 end end) end
      function h.on_open(conn)
        conn:receive()
        \(wait)
        for message in conn:messages() do
          if message == "end" then return conn:send(most) end
          run = run + 1
          most = math.max(most, run)
        end
      end
      """)
    let client = try server.connect()
    try client.send(String(repeating: "\n", count: 20_000) + "end\n")
    let most = try #require(Int(try client.receiveLine()))
    // 256 of one turn, and those of the next that come before the counting task's.
    #expect(most > 1 && most <= 2 * 256)
    try server.stop()
  }

  @Test func `what receive takes counts for message_rate as what on_message gets does`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_message(conn, text)
        if text == "first" then for _ = 1, 18 do conn:receive() end else conn:send(text) end
      end
      """, "codec = 'line', message_rate = { per_second = 0.01, burst = 20, policy = 'close' }")
    let client = try server.connect()
    try client.send("first\n" + (1...100).map { "\($0)\n" }.joined())
    #expect(try client.receiveTextUntilEnd() == "19\n")
  }

  @Test(arguments: ["on_open", "on_message"])
  func `a client that does not read is not asked for more by receive under policy "pause"`(handler: String) throws {
    let server = try MoonportProcess.serving(
      """
      local count, before = 0, 0
      moonport.every(0.05, function()
        if count > 0 and count == before then print("rests") end
        before = count
      end)
      local function answer(conn, text)
        count = count + 1
        if not conn:send(text, ("z"):rep(5000)) then print("lost " .. text) end
      end
      function h.\(handler)(conn, text)
        if text then answer(conn, text) end
        for message in conn:messages() do answer(conn, message) end
      end
      """, "codec = 'line', output_limit = { policy = 'pause', soft = 20000, hard = 200000 }")
    let client = try TestClient(server.address, receiveBufferBytes: 4096)
    try client.send((1...3000).map { "\($0)\n" }.joined())
    try server.waitForOutput(containing: "rests\n")
    for number in 1...3000 { #expect(try client.receiveLine().hasPrefix("\(number)z")) }
    #expect(server.outputCount(of: "lost") == 0)
  }

  @Test func `"drop_oldest" of tiny messages holds memory of a few times the limit`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_message(conn)
        for i = 1, 300000 do conn:send(i % 2 == 1 and "x" or "y") end
        conn:send("z")
        print("queued " .. conn:buffered())
      end
      """, "codec = 'raw', output_limit = { policy = 'drop_oldest' }"
    ) { $0.arguments = ["--handler-budget", "60"] }
    let client = try TestClient(server.address, receiveBufferBytes: 4096)
    let before = try server.residentBytes()
    try client.send("go")
    try server.waitForOutput(containing: "queued ")
    let queued = try #require(Int(server.output.dropFirst("queued ".count).dropLast()))
    #expect(queued <= 65_536, "of 512 bytes each")
    #expect(try server.residentBytes() < before + (64 << 20))
    var bytes: [UInt8] = []
    while bytes.last != UInt8(ascii: "z") { bytes += try client.receive(exactly: 1) }
    try server.stop()
  }

  @Test func `a large broadcast to clients of two codecs is kept once for each`() throws {
    let server = try MoonportProcess.serving(
      """
      moonport.listen { address = "127.0.0.1:0", codec = "netstring" }
      function h.on_open(conn) conn:send("hello") end
      function h.on_message() moonport.broadcast(("b"):rep(1 << 22)) print("spread") end
      """
    ) { $0.listeners = 2 }
    let other = try #require(server.addresses.last)
    var clients: [TestClient] = []
    for _ in 1...10 {
      for (address, greeting) in [(server.address, "hello\n"), (other, "5:hello,")] {
        let client = try TestClient(address, receiveBufferBytes: 4096)
        #expect(try client.receive(exactly: greeting.utf8.count) == Array(greeting.utf8))
        clients.append(client)
      }
    }
    let before = try server.residentBytes()
    try clients[0].send("\n")
    try server.waitForOutput(containing: "spread")
    #expect(try clients[1].receive(exactly: 10) == Array("4194304:bb".utf8))
    #expect(try server.residentBytes() < before + (32 << 20), "20 copies take 80 MB")
    try server.stop()
  }

  @Test func `on_close of a peer that an answer's encode has ended comes before the next message`() throws {
    let server = try MoonportProcess.serving(
      """
      local asker, peer
      local function decode(bytes, position) if position <= #bytes then return bytes:sub(position), #bytes + 1 end end
      local function encode(text) asker:send("encodes") return text end
      moonport.listen {
        address = "127.0.0.1:0", codec = { decode = decode, encode = encode },
        output_limit = { hard = 1000, soft = 1000 },
        handler = {
          on_open = function(conn) peer = conn end,
          on_close = function(conn, reason) asker:send("closed " .. reason) end,
        },
      }
      function h.on_message(conn, text)
        asker = conn
        if text == "ask" then peer:send(("y"):rep(2000)) else conn:send(text) end
      end
      """
    ) { $0.listeners = 2 }
    let address = try #require(server.addresses.last)
    let peer = try TestClient(address)
    try eventually("the peer is there") { try server.status()["connections"].integer == 1 }
    let client = try server.connect()
    try client.send("start\nask\n" + (1...5).map { "\($0)\n" }.joined())
    #expect(try client.receiveLines(8) == ["start", "encodes", "closed overflow", "1", "2", "3", "4", "5"])
    #expect(try peer.waitForEnd() == .reset)
  }
}
