// Handlers that wait, on the built program: conversations, and what waits and goes on meanwhile.
//
// Must never know: anything but the program's command line, its streams and its sockets.

import Glibc
import TestSupport
import Testing

@Suite struct ConversationTests {
  @Test func `a conversation inside on_open takes the messages in turn and ends with the client`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_open(conn)
        conn:send("who?")
        local name = conn:receive()
        for line in conn:messages() do conn:send(name .. ": " .. line) end
        print(name .. " left")
        conn:send("bye " .. name)
      end
      function h.on_message(conn, text) print("never") end
      function h.on_close(conn, reason) print("closed " .. reason) end
      """)
    let client = try server.connect()
    #expect(try client.receiveLine() == "who?")
    try client.send("ann\none\ntwo\nthree\n")
    try client.halfClose()
    #expect(try client.receiveTextUntilEnd() == "ann: one\nann: two\nann: three\nbye ann\n")
    try server.waitForOutput(containing: "closed peer\n")
    #expect(server.output == "ann left\nclosed peer\n")
  }

  @Test func `after a conversation has returned, further messages go to on_message`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_open(conn) conn:send("hello " .. conn:receive()) end
      function h.on_message(conn, text) conn:send("message " .. text) end
      """)
    let client = try server.connect()
    try client.send("ann\none\ntwo\n")
    #expect(try client.receiveLines(3) == ["hello ann", "message one", "message two"])
  }

  @Test func `while a handler is suspended later messages of its connection wait, and other connections go on`() throws
  {
    let server = try MoonportProcess.serving(
      """
      local gate = false
      function h.on_message(conn, text)
        if text == "open" then gate = true end
        if text == "wait" then while not gate do sleep(0.002) end end
        conn:send(text)
      end
      """)
    let slow = try server.connect()
    try slow.send("wait\none\ntwo\n")
    let quick = try server.connect()
    for index in 0..<20 { #expect(try quick.ask("\(index)") == "\(index)") }
    #expect(try slow.tryReceive(for: 0) == nil)
    try slow.send("three\n")
    #expect(try quick.ask("open") == "open")
    #expect(try slow.receiveLines(4) == ["wait", "one", "two", "three"])
  }

  @Test func `while a handler is suspended the server stops reading its client at a bound, and then goes on`() throws {
    let server = try MoonportProcess.serving(
      """
      local gate, bytes = false, 0
      function h.on_message(conn, text)
        if text == "open" then gate = true return end
        while not gate do sleep(0.002) end
        bytes = bytes + #text + 1
        if text == "end" then conn:send(bytes) end
      end
      """)
    let other = try server.connect()
    let client = try server.connect()
    let before = try server.residentBytes()
    let line = [UInt8](repeating: UInt8(ascii: "x"), count: 999) + [10]
    var sent = 0
    var refusedInARow = 0
    // The kernel's buffers take a few MB; what the server itself keeps must not grow with what is sent.
    while refusedInARow < 50, sent < 64_000_000 {
      let count = try client.trySend(Array(line[(sent % line.count)...]))
      sent += count
      refusedInARow = count == 0 ? refusedInARow + 1 : 0
      if count == 0 { usleep(1_000) }
    }
    #expect(sent < 64_000_000)
    #expect(try server.residentBytes() - before < 8_000_000)
    try other.send("open\n")
    let rest = Array(line[(sent % line.count)...])
    try client.send(rest)
    sent += rest.count
    #expect(try client.ask("end") == "\(sent + 4)")
  }

  @Test func `a handler that yields by itself goes on, and others get their turn`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_message(conn, text)
        if text == "yield" then
          for _ = 1, 1000 do coroutine.yield() end
        end
        conn:send(text)
      end
      """)
    let first = try server.connect()
    let second = try server.connect()
    try first.send("yield\n")
    #expect(try second.ask("quick") == "quick")
    #expect(try first.receiveLine() == "yield")
  }
}
