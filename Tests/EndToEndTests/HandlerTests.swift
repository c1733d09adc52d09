// Every handler of a script, on the built program: when it is called, with what, and what happens where the script has none.
//
// Must never know: anything but the program's command line, its streams and its sockets.

import Glibc
import TestSupport
import Testing

@Suite struct HandlerTests {
  @Test func `on_start runs once on every worker, with its number`() throws {
    let server = try MoonportProcess.serving(
      "function h.on_start(id) print('started ' .. id .. ' of ' .. moonport.worker.count) end", workers: 3)
    for id in 1...3 { try server.waitForOutput(containing: "started \(id) of 3\n") }
    #expect(try server.connect().localAddress != "")
    #expect(server.outputCount(of: "started") == 3)
  }

  @Test func `on_open that returns false refuses the client, which then has neither messages nor an on_close`() throws {
    let server = try MoonportProcess.serving(
      """
      local count = 0
      function h.on_open(conn)
        count = count + 1
        if count == 1 then conn:send("full") return false end
        return nil
      end
      function h.on_message(conn, text) print("message " .. text) conn:send(text) end
      function h.on_close(conn, reason) print("closed " .. reason) end
      """)
    let refused = try server.connect()
    try refused.send("one\n")
    #expect(try refused.receiveTextUntilEnd() == "full\n")
    let second = try server.connect()
    #expect(try second.ask("two") == "two")
    second.close()
    try server.waitForOutput(containing: "closed peer\n")
    #expect(server.output == "message two\nclosed peer\n")
    #expect(contains(try server.control("status", "--json").output, "\"refused by on_open\":1"))
  }

  @Test func `on_open may wait before it refuses`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_open(conn) sleep(0.01) return false end
      function h.on_message(conn, text) print("message " .. text) end
      function h.on_close(conn, reason) print("closed " .. reason) end
      """)
    let client = try server.connect()
    try client.send("one\n")
    #expect(try client.waitForEnd() == .closed)
    client.close()
    try server.stop()
    #expect(server.output == "")
  }

  @Test func `on_message gets each message in order, with the same connection and its table`() throws {
    let server = try MoonportProcess.serving(
      """
      local opened
      function h.on_open(conn) opened = conn end
      function h.on_message(conn, text)
        conn.ctx.count = (conn.ctx.count or 0) + 1
        conn:send(conn.ctx.count .. " " .. text .. " " .. tostring(rawequal(conn, opened)))
      end
      """)
    let client = try server.connect()
    try client.send("a\nb\n\nc\n")
    #expect(try client.receiveLines(4) == ["1 a true", "2 b true", "3  true", "4 c true"])
  }

  @Test func `on_drain is called once the queue is empty after it was over its soft limit, and not otherwise`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_message(conn, text)
        if text == "small" then return conn:send("here") end
        for _ = 1, 120 do conn:write(("x"):rep(100000)) end
        print(conn:buffered() > 1000000 and "over the limit" or "not over the limit")
      end
      function h.on_drain(conn) print("drained " .. conn:buffered()) end
      """, "codec = \"line\", output_limit = { soft = 1000000, hard = 16000000 }")
    let client = try TestClient(server.address, receiveBufferBytes: 4096)
    #expect(try client.ask("small") == "here")
    try client.send("large\n")
    // Nobody reads before all is queued, and the kernel's buffers do not hold it.
    try server.waitForOutput(containing: "limit\n")
    #expect(try client.receive(exactly: 12_000_000).allSatisfy { $0 == UInt8(ascii: "x") })
    try server.waitForOutput(containing: "drained 0\n")
    #expect(try client.ask("small") == "here")
    #expect(server.output == "over the limit\ndrained 0\n")
  }

  @Test func `on_drain also follows a single message that is larger than the soft limit`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_message(conn) conn:write(("x"):rep(12000000)) print("written") end
      function h.on_drain(conn) print("drained " .. conn:buffered()) end
      """, "codec = \"line\", output_limit = { soft = 100000, hard = 16000000 }")
    let client = try TestClient(server.address, receiveBufferBytes: 4096)
    try client.send("large\n")
    try server.waitForOutput(containing: "written\n")
    #expect(try client.receive(exactly: 12_000_000).count == 12_000_000)
    try server.waitForOutput(containing: "drained 0\n")
  }

  @Test func `on_close is called at once while another handler of the connection is suspended, and never again`() throws
  {
    let server = try MoonportProcess.serving(
      """
      function h.on_message(conn, text)
        print("waits")
        while not conn.ctx.closed do sleep(0.005) end
        print("goes on " .. tostring(conn:closed()) .. " " .. tostring(select(2, conn:join("room"))))
      end
      function h.on_close(conn, reason) print("closed " .. reason) conn.ctx.closed = true end
      """)
    let client = try server.connect()
    try client.send("x\n")
    try server.waitForOutput(containing: "waits\n")
    client.reset()
    try server.waitForOutput(containing: "goes on true closed\n")
    try server.stop()
    #expect(server.output == "waits\nclosed reset\ngoes on true closed\n")
  }

  @Test func `on_close comes at the peer's end once all it sent was received, whatever the handler does then`() throws {
    let server = try MoonportProcess.serving(
      """
      local gate = false
      function h.on_open(conn)
        local first = conn:receive()
        if first == "open" then gate = true return end
        while not gate do sleep(0.002) end
        print("got " .. first .. conn:receive() .. conn:receive())
        while not conn.ctx.closed do sleep(0.002) end
        print("goes on")
      end
      function h.on_close(conn, reason) if gate then print("closed " .. reason) conn.ctx.closed = true end end
      """)
    let client = try server.connect()
    try client.send("a\nb\nc\n")
    try client.halfClose()
    let other = try server.connect()
    try other.send("open\n")
    try server.waitForOutput(containing: "goes on\n")
    #expect(server.output == "got abc\nclosed peer\ngoes on\n")
  }

  @Test func `on_error gets the error with its traceback, and the connection goes on`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_message(conn, text)
        if text == "fail" then error("broken on purpose") end
        conn:send(text)
      end
      function h.on_error(conn, message) conn:send((message:gsub("\\n", "|"))) end
      """)
    let client = try server.connect()
    let report = try client.ask("fail")
    #expect(contains(report, "main.lua:6: broken on purpose|stack traceback:"))
    #expect(try client.ask("still here") == "still here")
    #expect(server.errors.split(separator: "\n").count == 1)
  }

  @Test(arguments: ["", "sleep(0.001)"])
  func `an error in on_error is logged with the one that it was told of, and closes the connection`(wait: String) throws
  {
    let server = try MoonportProcess.serving(
      """
      function h.on_message(conn, text) error("the first, " .. text) end
      function h.on_error(conn, message)
        \(wait)
        if message:find("twice") then error("the second") end
      end
      function h.on_close(conn, reason) print("closed " .. reason) end
      """)
    let client = try server.connect()
    try client.send("once\n")
    try client.send("twice\n")
    #expect(try client.waitForEnd() == .closed)
    try server.waitForOutput(containing: "closed error\n")
    try server.waitForErrors(containing: "on_error was told of")
    let lines = server.errors.split(separator: "\n").dropFirst().map(String.init)
    #expect(lines.count == 2)
    #expect(contains(lines.first ?? "", "main.lua:8: the second"))
    #expect(contains(lines.last ?? "", "on_error was told of: "))
    #expect(contains(lines.last ?? "", "main.lua:5: the first, twice"))
  }

  @Test(arguments: ["on_open", "on_message"])
  func `an error without on_error is logged and closes its connection with "error", and no other`(
    handler: String
  ) throws {
    let server = try MoonportProcess.serving(
      """
      function h.\(handler)(conn, text)
        if moonport.count() == 2 then local x = nil; x.field = 1 end
        if text then conn:send(text) end
      end
      function h.on_close(conn, reason) print("closed " .. reason) end
      """)
    let other = try server.connect()
    if handler == "on_message" { #expect(try other.ask("alone") == "alone") }
    try eventually("the first client is counted") {
      contains(try server.control("status", "--json").output, "\"connections\":1")
    }
    let client = try server.connect()
    try client.send("x\n")
    #expect(try client.waitForEnd() == .closed)
    try server.waitForOutput(containing: "closed error\n")
    try server.waitForErrors(containing: "main.lua:6: attempt to index a nil value (local 'x')")
    if handler == "on_message" { #expect(try other.ask("again") == "again") }
    #expect(server.output == "closed error\n")
  }

  @Test func `an error in on_error is logged and closes the connection, and one in on_close is only logged`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_message(conn, text) error("first") end
      function h.on_error(conn, message) error("second") end
      function h.on_close(conn, reason) print("closed " .. reason) error("third") end
      """)
    let client = try server.connect()
    try client.send("x\n")
    #expect(try client.waitForEnd() == .closed)
    for text in ["main.lua:6: second", "main.lua:7: third"] { try server.waitForErrors(containing: text) }
    try server.waitForOutput(containing: "closed error\n")
    #expect(try server.connect().localAddress != "")
  }

  @Test func `an error in on_start, on_stop or a timer takes nothing down`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_start() moonport.after(0, function() error("in a timer") end) error("in on_start") end
      function h.on_stop() error("in on_stop") end
      function h.on_message(conn, text) conn:send(text) end
      """)
    try server.waitForErrors(containing: "main.lua:5: in a timer")
    try server.waitForErrors(containing: "main.lua:5: in on_start")
    #expect(try server.connect().ask("well") == "well")
    try server.stop()
    try server.waitForErrors(containing: "main.lua:6: in on_stop")
  }

  @Test func `an error that is no string is described`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_message(conn, text)
        if text == "table" then error(setmetatable({}, { __tostring = function() return "my own error" end })) end
        error()
      end
      function h.on_error(conn, message) conn:send((message:gsub("\\n.*", ""))) end
      """)
    let client = try server.connect()
    #expect(contains(try client.ask("table"), "my own error"))
    #expect(contains(try client.ask("nil"), "nil"))
  }

  @Test func `on_console gets each line typed at the server, without its end`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_console(line) print(moonport.worker.id .. " <" .. line .. ">") moonport.broadcast(line) end
      """, workers: 2
    ) {
      $0.arguments = ["--console"]
      $0.streams = .pipe
    }
    let clients = try [server.connect(), server.connect()]
    try eventually("both are counted") { contains(try server.control("status", "--json").output, "\"connections\":2") }
    try server.type("hello\r\n\nlast")
    server.child.closeInput()
    try server.waitForOutput(containing: "1 <hello>\n1 <>\n1 <last>\n")
    for client in clients { #expect(try client.receiveLines(3) == ["hello", "", "last"]) }
  }

  @Test func `without on_console a typed line goes to every client of every worker`() throws {
    let server = try MoonportProcess.serving("", workers: 2) {
      $0.arguments = ["--console"]
      $0.streams = .pipe
    }
    let clients = try (0..<3).map { _ in try server.connect() }
    try eventually("all are counted") { contains(try server.control("status", "--json").output, "\"connections\":3") }
    try server.type("from the terminal\n")
    for client in clients { #expect(try client.receiveLine() == "from the terminal") }
  }

  @Test func `on_stop runs once on every worker, and the clients get on_close with "shutdown" and a clean end`() throws
  {
    let server = try MoonportProcess.serving(
      """
      function h.on_open(conn) conn:send("welcome") end
      function h.on_close(conn, reason) print("closed " .. reason) conn:send("too late") end
      function h.on_stop(reason) print("stopped " .. reason) end
      """, workers: 2)
    let clients = try [server.connect(), server.connect()]
    for client in clients { #expect(try client.receiveLine() == "welcome") }
    server.sendSignal(SIGTERM)
    try server.waitForErrors(containing: "draining")
    server.sendSignal(SIGTERM)
    for client in clients { #expect(try client.waitForEnd() == .closed) }
    #expect(try server.waitForExit() == .exited(0))
    #expect(server.outputCount(of: "closed shutdown\n") == 2)
    #expect(server.outputCount(of: "stopped ") == 2)
  }

  @Test func `the script's folder holds its modules, each run once for a worker, and arg what follows --`() throws {
    let folder = try TemporaryFolder()
    try folder.write("greeting.lua", "local name = ... return { hello = function(who) return name .. ' ' .. who end }")
    try folder.write("deep/init.lua", "loads = (loads or 0) + 1 return { inner = require 'deep.inner' }")
    try folder.write("deep/inner.lua", "return 'inside'")
    let server = try MoonportProcess.serving(
      """
      local greeting, deep = require "greeting", require "deep"
      local count = select("#", ...)
      function h.on_message(conn, text)
        require "deep"
        conn:send(table.concat({ greeting.hello(text), deep.inner, loads, #arg, arg[1], arg[2], count }, " "))
      end
      """, folder: folder
    ) { $0.scriptArguments = ["first", "--second"] }
    let client = try server.connect()
    #expect(try client.ask("ann") == "greeting ann inside 1 2 first --second 2")
  }

  @Test func `a listener may have handlers of its own`() throws {
    let script = """
      local moonport = require "moonport"
      local own = {}
      function own.on_message(conn, text) conn:send("own " .. text) end
      moonport.listen { address = "127.0.0.1:0", codec = "line", handler = own }
      moonport.listen { address = "127.0.0.2:0", codec = "line" }
      local h = {}
      function h.on_message(conn, text) conn:send("main " .. text) end
      return h
      """
    let server = try MoonportProcess(script: script) { $0.listeners = 2 }
    #expect(try server.connect(listener: 0).ask("x") == "own x")
    #expect(try server.connect(listener: 1).ask("x") == "main x")
  }
}
