// Rooms, pausing, and what is queued for a connection, on the built program.
//
// Must never know: anything but the program's command line, its streams and its sockets.

import TestSupport
import Testing

@Suite struct RoomAndPauseTests {
  @Test func `join, leave and rooms tell what they did, and rooms are left with the connection`() throws {
    let server = try MoonportProcess.serving(
      """
      local function text(...) local t = table.pack(...) for i = 1, t.n do t[i] = tostring(t[i]) end return table.concat(t, " ") end
      function h.on_message(conn, message)
        if message == "count" then return conn:send(moonport.count("a") .. " " .. moonport.count("b")) end
        local first = text(conn:join("a"), conn:join("b"), conn:join("a"))
        local rooms = conn:rooms()
        table.sort(rooms)
        conn:send(first, " ", table.concat(rooms, "+"), " ", text(conn:leave("b"), conn:leave("b"), #conn:rooms()))
      end
      """)
    let first = try server.connect()
    #expect(try first.ask("x") == "true true false a+b true false 1")
    let second = try server.connect()
    #expect(try second.ask("count") == "1 0")
    first.close()
    try eventually("the room is empty") { try second.ask("count") == "0 0" }
  }

  @Test func `pause stops messages at once, and resume goes on without losing any`() throws {
    let server = try MoonportProcess.serving(
      """
      local paused
      function h.on_message(conn, text)
        if text == "pause" then paused = conn return conn:send(tostring(conn:pause())) end
        if text == "resume" then return conn:send(tostring(paused:resume())) end
        conn:send(text)
      end
      """)
    let client = try server.connect()
    try client.send("a\npause\nb\nc\n")
    #expect(try client.receiveLines(2) == ["a", "true"])
    let other = try server.connect()
    try client.send("d\n")
    for _ in 0..<20 { #expect(try other.ask("x") == "x") }
    #expect(try client.tryReceive(for: 0) == nil)
    #expect(try other.ask("resume") == "true")
    #expect(try client.receiveLines(3) == ["b", "c", "d"])
    #expect(try client.ask("e") == "e")
  }

  @Test func `what a paused client sent before it ended is handed over after resume`() throws {
    let server = try MoonportProcess.serving(
      """
      local paused
      function h.on_message(conn, text)
        if text == "pause" then paused = conn conn:pause() end
        if text == "resume" then paused:resume() end
        conn:send(text)
      end
      function h.on_close(conn, reason) print("closed " .. reason) end
      """)
    let client = try server.connect()
    try client.send("pause\nb\nc\n")
    try client.halfClose()
    #expect(try client.receiveLine() == "pause")
    let other = try server.connect()
    for _ in 0..<20 { #expect(try other.ask("x") == "x") }
    #expect(server.output == "")
    #expect(try other.ask("resume") == "resume")
    #expect(try client.receiveTextUntilEnd() == "b\nc\n")
    try server.waitForOutput(containing: "closed peer\n")
  }

  @Test func `pause stops reading the socket, so that the client notices`() throws {
    let server = try MoonportProcess.serving(
      """
      local bytes, paused = 0
      function h.on_open(conn) if not paused then paused = conn conn:pause() end end
      function h.on_message(conn, text)
        if text == "!" then paused:resume() return end
        bytes = bytes + #text
        if bytes == 40000000 then conn:write("all") end
      end
      """, "")
    let client = try server.connect()
    let other = try server.connect()
    let sender = TestThread { try client.send([UInt8](repeating: 120, count: 40_000_000)) }
    #expect(throws: (any Error).self) { try sender.join(timeout: 0.3) }
    try other.send("!")
    #expect(try client.receive(exactly: 3).count == 3)
    try sender.join()
  }

  @Test func `buffered counts the bytes queued, and falls to 0 as the client reads`() throws {
    let server = try MoonportProcess.serving(
      """
      local slow
      function h.on_message(conn, text)
        if text == "fill" then
          slow = conn
          for _ = 1, 75 do conn:write(("x"):rep(100000)) end
          conn:send("")
        else
          -- What the other one asks may be read first.
          conn:send((slow and slow:buffered() or 0) .. " " .. conn:buffered())
        end
      end
      """)
    let slow = try TestClient(server.address, receiveBufferBytes: 4096)
    try slow.send("fill\n")
    let other = try server.connect()
    try eventually("much is queued") {
      let parts = try other.ask("x").split(separator: " ").compactMap { Int($0) }
      return parts[0] > 1_000_000 && parts[0] < 7_500_002 && parts[1] == 0
    }
    #expect(try slow.receiveLine().utf8.count == 7_500_000)
    try eventually("all was sent") { try other.ask("x") == "0 0" }
  }

  @Test func `a script's decode may close its connection`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_open(conn) current = conn if conversation then conn:receive(2) conn:receive() end end
      function h.on_close(conn, reason) print("closed " .. reason) conversation = true end
      """,
      """
      codec = {
        decode = function(b, p) if p <= #b then current[b:sub(1, 1) == "c" and "close" or "abort"](current) return b:sub(p), #b + 1 end end,
        encode = function(m) return m end,
      }
      """)
    for text in ["close", "abort", "close", "abort", "xxabort", "xxclose"] {
      let client = try server.connect()
      try client.send(text)
      _ = try client.waitForEnd()
    }
    try eventually("all were closed") { server.outputCount(of: "closed script\n") == 6 }
  }
}
