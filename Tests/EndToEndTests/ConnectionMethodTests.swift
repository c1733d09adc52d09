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
}
