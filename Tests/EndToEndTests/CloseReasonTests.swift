// Every reason a connection may end for, on the built program: on_close gets it exactly once, and the client sees the end.
//
// Must never know: anything but the program's command line, its streams and its sockets.

import Glibc
import TestSupport
import Testing

@Suite struct CloseReasonTests {
  /// Prints each end, and does what it is told.
  private static let obedient = """
    function h.on_message(conn, text)
      if text == "close" then conn:close() end
      if text == "close by id" then moonport.close(conn.id) end
      if text:find("^because") then conn:close(text) end
      if text:find("^by id because") then moonport.close(conn.id, text) end
      if text == "abort" then conn:abort() end
      if text == "fail" then error("on purpose") end
      if text == "fill" then for _ = 1, 200 do conn:write(("x"):rep(100000)) end end
      if text == "twice" then conn:close("first") conn:close("second") conn:abort() end
      if text == "wait" then sleep(1000) end
    end
    function h.on_close(conn, reason) print("closed " .. reason) end
    """

  private static func server(messageTimeout: Double = 0) throws -> MoonportProcess {
    try .serving(obedient, "codec = { type = 'line', max_length = 100 }, message_timeout = \(messageTimeout)")
  }

  @Test(arguments: [
    ("close", "script"), ("close by id", "script"), ("because I say so", "because I say so"),
    ("by id because", "by id because"), ("fail", "error"), ("twice", "first"),
  ])
  func `an end from the script's side is clean, with its reason`(command: String, reason: String) throws {
    let server = try CloseReasonTests.server()
    let client = try server.connect()
    try client.send("\(command)\nmore\n")
    #expect(try client.waitForEnd() == .closed)
    client.close()
    try server.stop()
    #expect(server.output == "closed \(reason)\n")
  }

  @Test func `an abort is a reset for the client and "script" for the script`() throws {
    let server = try CloseReasonTests.server()
    let client = try server.connect()
    try client.send("abort\n")
    #expect(try client.waitForEnd() == .reset)
    try server.stop()
    #expect(server.output == "closed script\n")
  }

  @Test(arguments: [true, false]) func `"peer" when the client ends, also inside a message`(isHalf: Bool) throws {
    let server = try CloseReasonTests.server()
    let client = try server.connect()
    try client.send("a\nhalf of")
    if isHalf {
      try client.halfClose()
      #expect(try client.waitForEnd() == .closed)
    } else {
      client.close()
    }
    try server.waitForOutput(containing: "\n")
    try server.stop()
    #expect(server.output == "closed peer\n")
  }

  @Test(arguments: ["", "wait\n", "half"]) func `"reset" when the client resets`(text: String) throws {
    let server = try CloseReasonTests.server()
    let client = try server.connect()
    try client.send(text)
    try eventually("it arrived") {
      let status = try server.control("status", "--json").output
      return contains(status, "\"bytes_in\":\(text.utf8.count),") && contains(status, "\"connections\":1")
    }
    client.reset()
    try server.waitForOutput(containing: "closed reset\n")
    try server.stop()
    #expect(server.output == "closed reset\n")
  }

  @Test func `"timeout", "too long" and "overflow" come from the listener's limits`() throws {
    let server = try CloseReasonTests.server(messageTimeout: 0.1)
    let slow = try server.connect()
    try slow.send("begun")
    #expect(try slow.waitForEnd() == .closed)
    try server.waitForOutput(containing: "closed timeout\n")
    let long = try server.connect()
    try long.send(String(repeating: "x", count: 101))
    #expect(try long.waitForEnd() == .closed)
    try server.waitForOutput(containing: "closed too long\n")
    let deaf = try TestClient(server.address, receiveBufferBytes: 4096)
    try deaf.send("fill\n")
    try server.waitForOutput(containing: "closed overflow\n")
    #expect(try deaf.waitForEnd() == .reset)
    try server.stop()
    #expect(server.output == "closed timeout\nclosed too long\nclosed overflow\n")
  }

  @Test func `"shutdown" when the server ends, also while a handler is suspended`() throws {
    let server = try CloseReasonTests.server()
    let clients = try [server.connect(), server.connect()]
    try clients[0].send("wait\n")
    try eventually("both are there") {
      contains(try server.control("status", "--json").output, "\"connections\":2")
    }
    #expect(try server.control("stop").status == .exited(0))
    for client in clients { #expect(try client.waitForEnd() == .closed) }
    #expect(try server.waitForExit() == .exited(0))
    #expect(server.output == "closed shutdown\nclosed shutdown\n")
  }

  @Test func `a kicked client sees a clean end`() throws {
    let server = try MoonportProcess.serving(
      "function h.on_open(conn) conn:send(conn.id) end function h.on_close(conn, reason) print('closed ' .. reason) end"
    )
    let client = try server.connect()
    #expect(try server.control("kick", client.receiveLine()).status == .exited(0))
    #expect(try client.waitForEnd() == .closed)
    try server.waitForOutput(containing: "closed kicked\n")
  }

  @Test func `thousands of ends of every kind give exactly one on_close for each on_open`() throws {
    let server = try MoonportProcess.serving(
      """
      local opened, closed, twice = 0, 0, 0
      function h.on_open(conn) opened = opened + 1 end
      function h.on_message(conn, text)
        if text == "report" then return conn:write(opened .. " " .. closed .. " " .. twice .. "\\n") end
        if text == "close" then conn:send("bye") conn:close() end
        if text == "abort" then conn:abort() end
        if text == "wait" then sleep(0.001) conn:send("late") conn:close() end
        if text == "receive" then conn:receive(nil, 0.001) conn:close() conn:receive() end
        if text == "fail" then error({}) end
      end
      function h.on_error(conn) conn:close("failed") conn:abort() end
      function h.on_close(conn, reason)
        closed = closed + 1
        if conn.ctx.closed then twice = twice + 1 end
        conn.ctx.closed = true
      end
      """, "codec = { type = 'line', max_length = 10 }")
    let watcher = try server.connect()
    let rounds = 1500
    let texts = ["close\n", "abort\n", "wait\n", "receive\n", "fail\n", "x", "", "far too long for it\n"]
    try inParallel(4) { thread in
      for index in 0..<rounds / 4 {
        let client = try server.connect()
        // A server that ends first may reset what is sent after.
        _ = try? client.trySend(Array(texts[(index + thread) % texts.count].utf8))
        switch index % 3 {
        case 0: client.close()
        case 1: client.reset()
        default: try? client.halfClose(); _ = try client.waitForEnd()
        }
      }
    }
    try eventually("every one has ended, once") {
      let parts = try watcher.ask("report").split(separator: " ").compactMap { Int($0) }
      return parts[0] == parts[1] + 1 && parts[2] == 0 && parts[0] > rounds / 2
    }
  }
}
