// Every method and member of a connection, on the built program: results, failures, wrong arguments, and use after the end.
//
// Must never know: anything but the program's command line, its streams and its sockets.

import TestSupport
import Testing

@Suite struct ConnectionMethodTests {
  @Test func `id, peer and address are what both sides know`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_message(conn, text)
        conn:send(table.concat({ math.type(conn.id), conn.peer, conn.address, tostring(conn) }, " "))
      end
      """)
    let client = try server.connect()
    let answer = try client.ask("x").split(separator: " ").map(String.init)
    #expect(answer[0...2] == ["integer", client.localAddress, server.address])
    #expect(answer[3] == "connection" && answer.last == "(\(client.localAddress))")
  }

  @Test func `ids are never used twice, and differ between workers`() throws {
    let server = try MoonportProcess.serving("function h.on_open(conn) conn:send(conn.id) end", workers: 2)
    var ids: Set<String> = []
    for _ in 0..<300 { #expect(ids.insert(try server.connect().receiveLine()).inserted) }
  }

  @Test func `ctx is the connection's own table, may be replaced, and nothing else may be set`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_open(conn) conn:send(type(conn.ctx), next(conn.ctx) == nil and " empty" or " not empty") end
      function h.on_message(conn, text)
        if text == "get" then return conn:send(tostring(conn.ctx.value)) end
        if text == "replace" then conn.ctx = { value = "new" } return conn:send("ok") end
        if text == "number" then conn.ctx = 1 end
        if text == "other" then conn.other = 1 end
        conn.ctx.value = text
        conn:send(tostring(conn.nothing))
      end
      function h.on_error(conn, message) conn:send((message:gsub("\\n.*", ""))) end
      """)
    let first = try server.connect()
    let second = try server.connect()
    for client in [first, second] { #expect(try client.receiveLine() == "table empty") }
    #expect(try first.ask("mine") == "nil")
    #expect(try second.ask("get") == "nil")
    #expect(try first.ask("get") == "mine")
    #expect(try first.ask("replace") == "ok")
    #expect(try first.ask("get") == "new")
    #expect(contains(try first.ask("number"), "main.lua:9: "))
    #expect(contains(try first.ask("other"), "main.lua:10: cannot set 'other' on a connection"))
  }

  @Test func `send and write join their arguments, numbers included, and return true`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_open(conn)
        local a = conn:send("a", 1, 2.5, "")
        local b = conn:write("b", 2, "\\0\\n")
        conn:send("")
        conn:write("")
        conn:send(tostring(a), " ", tostring(b))
      end
      """)
    let client = try server.connect()
    #expect(try client.receiveLines(4) == ["a12.5", "b2\0", "", "true true"])
  }

  @Test func `several messages of one handler arrive in order, whatever their size`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_open(conn)
        for i = 1, 200 do conn:send(i, " ", ("x"):rep(i * i)) end
        conn:close()
      end
      """, "codec = \"line\", output_limit = { hard = 100000000 }")
    let client = try server.connect()
    for index in 1...200 {
      #expect(try client.receiveLine() == "\(index) " + String(repeating: "x", count: index * index))
    }
    #expect(try client.receiveLineOrEnd() == nil)
  }

  @Test func `close flushes what is queued, and the peer reads all of it and a clean end`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_message(conn, text)
        for i = 1, 50 do conn:write(("x"):rep(100000)) end
        print(conn:close(), conn:closed(), conn:close())
      end
      function h.on_close(conn, reason) print(reason, conn:closed()) end
      """)
    let client = try TestClient(server.address, receiveBufferBytes: 8192)
    try client.send("x\nnever handled\n")
    try server.waitForOutput(containing: "script\ttrue\n")
    #expect(try client.receiveUntilEnd().count == 5_000_000)
    #expect(server.output == "true\ttrue\tnil\tclosed\nscript\ttrue\n")
  }

  @Test func `close hands its reason to on_close`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_message(conn, text) conn:close(text) end
      function h.on_close(conn, reason) print("closed " .. reason) end
      """)
    let client = try server.connect()
    try client.send("my own reason\n")
    #expect(try client.waitForEnd() == .closed)
    try server.waitForOutput(containing: "closed my own reason\n")
  }

  @Test func `abort drops what is queued and resets`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_message(conn, text)
        for i = 1, 70 do conn:write(("x"):rep(100000)) end
        print(conn:abort(), conn:closed(), conn:abort())
      end
      function h.on_close(conn, reason) print(reason) end
      """)
    let client = try TestClient(server.address, receiveBufferBytes: 8192)
    try client.send("x\n")
    try server.waitForOutput(containing: "script\n")
    #expect(try client.waitForEnd() == .reset)
    #expect(server.output == "true\ttrue\tnil\tclosed\nscript\n")
  }

  @Test func `every method of an ended connection returns nil, "closed", and its members stay readable`() throws {
    let server = try MoonportProcess.serving(
      """
      local function try(name, ...)
        local results = table.pack(...)
        for i = 1, results.n do results[i] = tostring(results[i]) end
        print(name .. ": " .. table.concat(results, " "))
      end
      function h.on_message(conn, text)
        conn:join("room")
        conn.ctx.text = text
        moonport.after(0, function()
          local id, peer = conn.id, conn.peer
          conn:close()
          for i = 1, 2 do
            try("send", conn:send("x"))
            try("write", conn:write("x"))
            try("close", conn:close())
            try("abort", conn:abort())
            try("receive", conn:receive())
            try("receive n", conn:receive(3))
            try("join", conn:join("room"))
            try("leave", conn:leave("room"))
            try("rooms", conn:rooms())
            try("pause", conn:pause())
            try("resume", conn:resume())
            try("set_codec", conn:set_codec("raw"))
            try("set_codec own", conn:set_codec { decode = print, encode = print })
            try("buffered", conn:buffered())
            for message in conn:messages() do try("message", message) end
            try("by id", moonport.send(conn.id, "x"))
            try("write by id", moonport.write(conn.id, "x"))
            try("close by id", moonport.close(conn.id))
            try("closed", conn:closed())
            try("members", conn.id == id, conn.peer == peer, conn.ctx.text)
            while i == 1 and moonport.count() > 0 do sleep(0.002) end
            if i == 1 then sleep(0.02) end
          end
          print("done")
        end)
      end
      """)
    let client = try server.connect()
    try client.send("kept\n")
    #expect(try client.waitForEnd() == .closed)
    client.close()
    try server.waitForOutput(containing: "done\n")
    for line in server.output.split(separator: "\n").dropLast() {
      let name = line.prefix { $0 != ":" }
      let expected =
        switch name {
        case "closed": "closed: true"
        case "members": "members: true true kept"
        default: "\(name): nil closed"
        }
      #expect(line == expected)
    }
    #expect(server.output.split(separator: "\n").count == 2 * 19 + 1)
  }

  @Test(arguments: [
    ("conn:send()", "bad argument #1 to 'send'"), ("conn:send({})", "bad argument #1 to 'send'"),
    ("conn:send(nil)", "bad argument #1 to 'send'"), ("conn:send('a', true)", "bad argument #2 to 'send'"),
    ("conn:write()", "bad argument #1 to 'write'"), ("conn:write('a', print)", "bad argument #2 to 'write'"),
    ("conn:close({})", "bad argument #1 to 'close'"), ("conn.send('x')", "'send'"),
    ("conn.close()", "bad argument #1 to 'close' (connection expected, got no value)"),
    ("conn:receive({})", "receive"), ("conn:receive('*x')", "receive"), ("conn:receive(-1)", "receive"),
    ("conn:receive(1, 'soon')", "bad argument #2 to 'receive'"), ("conn:join()", "bad argument #1 to 'join'"),
    ("conn:join({})", "bad argument #1 to 'join'"), ("conn:leave(nil)", "bad argument #1 to 'leave'"),
    ("conn.rooms(1)", "bad argument #1 to 'rooms'"), ("conn.pause({})", "bad argument #1 to 'pause'"),
    ("conn.resume()", "bad argument #1 to 'resume'"), ("conn.buffered()", "bad argument #1 to 'buffered'"),
    ("conn.closed(io.stdout)", "bad argument #1 to 'closed'"), ("conn.abort(nil)", "bad argument #1 to 'abort'"),
    ("conn:set_codec()", "bad argument #1 to 'set_codec'"), ("conn:set_codec(5)", "bad argument #1 to 'set_codec'"),
    ("conn.messages({})", "bad argument #1 to 'messages' (connection expected"),
    ("conn.set_codec({}, 'line')", "bad argument #1 to 'set_codec' (connection expected"),
    ("conn:shout()", "method 'shout'"),
  ])
  func `wrong use raises an error that names the function, the argument and the script's line`(
    call: String, problem: String
  ) throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_message(conn, text)

        \(call)
      end
      function h.on_error(conn, message) conn:send((message:gsub("\\n.*", ""))) end
      """)
    let reported = try server.connect().ask("x")
    #expect(contains(reported, "main.lua:7: ") && contains(reported, problem), "\(reported)")
  }

  // MARK: Receiving

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

  // MARK: Rooms, pausing, what is queued

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
        if text == "resume" then paused:resume() return end
        bytes = bytes + #text
        if bytes == 40000000 then conn:write("all") end
      end
      """, "")
    let client = try server.connect()
    let other = try server.connect()
    let sender = TestThread { try client.send([UInt8](repeating: 120, count: 40_000_000)) }
    #expect(throws: (any Error).self) { try sender.join(timeout: 0.3) }
    try other.send("resume")
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
          conn:send(slow:buffered() .. " " .. conn:buffered())
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
