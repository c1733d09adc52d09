// What conn:receive and conn:messages give, on the built program: in every form, at the end, in time and too late.
//
// Must never know: anything but the program's command line, its streams and its sockets.

import TestSupport
import Testing

@Suite struct ReceiveTests {
  @Test func `receive takes a message, so many bytes, a line, or all until the end`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_open(conn)
        local parts = { conn:receive(), conn:receive(3), conn:receive(0), conn:receive("*l"), conn:receive(), conn:receive("*a") }
        for i, part in ipairs(parts) do parts[i] = "<" .. part .. ">" end
        conn:write(table.concat(parts))
        conn:write(tostring(conn:receive()) .. select(2, conn:receive("*a")))
      end
      """, "codec = { type = \"netstring\" }")
    let stream = "5:hello,abcline\r\n2:hi,the rest\n of it"
    for piece in [stream.utf8.count, 1, 7] {
      let client = try server.connect()
      client.setNoDelay()
      var rest = Array(stream.utf8)[...]
      while !rest.isEmpty {
        try client.send(Array(rest.prefix(piece)))
        rest = rest.dropFirst(piece)
      }
      try client.halfClose()
      #expect(try client.receiveTextUntilEnd() == "<hello><abc><><line><hi><the rest\n of it>nilclosed")
    }
  }

  @Test func `receive returns nil, "closed" and the bytes that complete nothing`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_open(conn)
        local what = conn:receive()
        local result, reason, partial = conn:receive(tonumber(what) or (what ~= "message" and what or nil))
        conn:send(tostring(result), " ", tostring(reason), " <", tostring(partial), ">")
      end
      """)
    for (what, rest, answer) in [
      ("10", "abc", "nil closed <abc>"), ("*l", "abc", "nil closed <abc>"), ("message", "abc", "nil closed <abc>"),
      ("message", "", "nil closed <>"), ("*a", "", "nil closed <>"), ("*a", "abc", "abc nil <nil>"),
    ] {
      for halfCloseFirst in [true, false] {
        let client = try server.connect()
        try client.send(halfCloseFirst ? "\(what)\n\(rest)" : "\(what)\n")
        if !halfCloseFirst { try client.send(rest) }
        try client.halfClose()
        #expect(try client.receiveTextUntilEnd() == answer + "\n", "\(what)")
      }
    }
  }

  @Test func `receive that times out returns nil, "timeout" and the partial bytes, and consumes nothing`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_open(conn)
        conn:receive()
        for _, what in ipairs { 10, "*l", "*a", false } do
          local result, reason, partial = conn:receive(what or nil, 0.01)
          conn:send(tostring(result), " ", reason, " ", partial)
        end
        conn:send(conn:receive(2), conn:receive())
      end
      """)
    let client = try server.connect()
    try client.send("begin\nabc")
    #expect(try client.receiveLines(4) == Array(repeating: "nil timeout abc", count: 4))
    try client.send("d\n")
    #expect(try client.receiveLine() == "abcd")
  }

  @Test func `receive inside on_message takes what comes next`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_message(conn, text)
        if text == "data" then conn:send("data " .. conn:receive(tonumber(conn:receive()))) else conn:send(text) end
      end
      """)
    let client = try server.connect()
    try client.send("a\ndata\n5\nx\ny\nzb\ndata\n")
    #expect(try client.receiveLines(5) == ["a", "data x", "y", "z", "b"])
    try client.send("2")
    try client.send("\nok")
    #expect(try client.receiveLine() == "data ok")
  }

  @Test func `receive takes far more than the bound of what waits for a suspended handler`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_open(conn)
        sleep(0.02)
        local first = conn:receive(700000)
        conn:send(#first, first:sub(1, 1), first:sub(-1))
        sleep(0.02)
        local rest = conn:receive("*a")
        conn:send(#rest, rest:sub(1, 1), rest:sub(-1))
      end
      """)
    let client = try server.connect()
    let half = [UInt8](repeating: UInt8(ascii: "m"), count: 699_998)
    let sender = TestThread {
      try client.send([97] + half + [98] + [99] + half + half + [100])
      try client.halfClose()
    }
    #expect(try client.receiveTextUntilEnd() == "700000ab\n1399998cd\n")
    try sender.join()
  }

  @Test func `a connection may end itself in on_open, and what on_close does with it is harmless`() throws {
    let server = try MoonportProcess.serving(
      """
      local ends = { "close", "abort" }
      local count = 0
      function h.on_open(conn)
        count = count + 1
        conn:join("room")
        conn:send("hello")
        conn[ends[count % 2 + 1]](conn)
      end
      function h.on_message(conn, text) print("never") end
      function h.on_close(conn, reason)
        print(reason, conn:send("x"), conn:join("room"), moonport.count(), moonport.count("room"))
        moonport.broadcast("somebody left")
      end
      """)
    for index in 1...2 {
      let client = try server.connect()
      _ = try? client.trySend([120, 10])
      _ = try client.waitForEnd()
      try eventually("on_close was called") { server.outputCount(of: "\n") == index }
    }
    #expect(server.output == String(repeating: "script\tnil\tnil\t0\t0\n", count: 2))
  }

  @Test func `a receive is woken when something else closes the connection`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_open(conn)
        moonport.after(0.01, function() conn:close("by a timer") end)
        print(conn:receive())
        print(conn:receive())
      end
      function h.on_close(conn, reason) print("closed " .. reason) end
      """)
    let client = try server.connect()
    #expect(try client.waitForEnd() == .closed)
    try server.waitForOutput(containing: "closed by a timer\n")
    try eventually("both returned") { server.outputCount(of: "nil\tclosed") == 2 }
  }

  @Test func `two coroutines cannot receive from one connection at once`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_open(conn)
        moonport.after(0, function()
          local ok, problem = pcall(conn.receive, conn)
          conn:send(tostring(ok), " ", problem)
        end)
        conn:send("got ", conn:receive())
      end
      """)
    let client = try server.connect()
    #expect(contains(try client.receiveLine(), "another coroutine already receives"))
    #expect(try client.ask("x") == "got x")
  }

  @Test func `messages iterates until the end, also over messages that came before`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_message(conn, first)
        local all = { first }
        for message in conn:messages() do
          if message == "stop" then break end
          all[#all + 1] = message
        end
        conn:send(table.concat(all, ","))
      end
      """)
    let client = try server.connect()
    try client.send("a\nb\nc\nstop\nd\ne\n")
    #expect(try client.receiveLine() == "a,b,c")
    try client.halfClose()
    #expect(try client.receiveTextUntilEnd() == "d,e\n")
  }
}
