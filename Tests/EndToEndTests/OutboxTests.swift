// What a handler answers to many messages that came at once, on the built program: whatever ways it mixes, a client gets all of it
// in the order of the calls, and everybody who asks what was sent is told the truth.
//
// Must never know: anything but the program's command line, its streams and its sockets.

import TestSupport
import Testing

@Suite struct OutboxTests {
  private static let script = """
    local ways = {
      send = function(conn, text) assert(conn:send(text)) end,
      write = function(conn, text) assert(conn:write(text .. "\\n")) end,
      parts = function(conn, text) assert(conn:send(text, "!")) end,
      number = function(conn, text) assert(conn:send(#text)) end,
      id = function(conn, text) assert(moonport.send(conn.id, text)) end,
      broadcast = function(conn, text) moonport.broadcast(text) end,
      coroutine = function(conn, text) coroutine.wrap(function() assert(conn:send(text)) end)() end,
      protected = function(conn, text) pcall(function() conn:send(text) error("no") end) end,
      twice = function(conn, text) conn:send(text) conn:write(text) conn:send("") end,
      sleep = function(conn, text) conn:send(text) moonport.sleep(0.001) conn:send(text) end,
      pause = function(conn, text) conn:send(text) moonport.sleep(0) end,
      netstring = function(conn, text)
        conn:send(text) conn:set_codec("netstring") conn:send(text) conn:write(text) conn:set_codec("line") conn:send(text)
      end,
      buffered = function(conn, text) conn:send(text) conn:send(conn:buffered() > #text and "much" or "little") end,
      fail = function(conn, text) conn:send(text) error("as told") end,
      close = function(conn, text) conn:send(text) conn:close() assert(not conn:send("late")) end,
    }
    function h.on_message(conn, line)
      local way, text = line:match("^(%l+) ?(.*)$")
      ways[way](conn, text)
    end
    """

  /// What a way sends to the client.
  private static let answers: [(way: String, answer: @Sendable (String) -> String)] = [
    ("send", { "\($0)\n" }), ("write", { "\($0)\n" }), ("parts", { "\($0)!\n" }), ("number", { "\($0.utf8.count)\n" }),
    ("id", { "\($0)\n" }), ("broadcast", { "\($0)\n" }), ("coroutine", { "\($0)\n" }), ("protected", { "\($0)\n" }),
    ("twice", { "\($0)\n\($0)\n" }), ("sleep", { "\($0)\n\($0)\n" }), ("pause", { "\($0)\n" }),
    ("netstring", { "\($0)\n\($0.utf8.count):\($0),\($0)\($0)\n" }), ("buffered", { "\($0)\nmuch\n" }),
  ]

  @Test(.seeded) func `answers come in the order of the calls, by whatever ways they are mixed`() throws {
    let server = try MoonportProcess.serving(OutboxTests.script)
    var random = SeededGenerator()
    let client = try server.connect()
    for round in 0..<30 {
      var lines = "", expected = ""
      for number in 0..<Int.random(in: 1...120, using: &random) {
        // Mostly the ways that nothing else has to come between.
        let common = Int.random(in: 0..<3, using: &random) > 0
        let (way, answer) = OutboxTests.answers[
          Int.random(in: 0..<(common ? 2 : OutboxTests.answers.count), using: &random)]
        let text = "\(number)" + String(repeating: "x", count: Int.random(in: 0...300, using: &random))
        lines += "\(way) \(text)\n"
        expected += answer(text)
      }
      // In one piece, or in pieces that end anywhere.
      var rest = Array(lines.utf8)[...]
      while !rest.isEmpty {
        let piece = round.isMultiple(of: 2) ? rest.count : Int.random(in: 1...400, using: &random)
        try client.send(Array(rest.prefix(piece)))
        rest = rest.dropFirst(piece)
      }
      let received = try? client.receive(exactly: expected.utf8.count)
      #expect(received.map { String(decoding: $0, as: UTF8.self) } == expected, "round \(round): \(server.errors)")
    }
    try server.stop()
  }

  @Test(arguments: ["fail", "close"]) func `what was answered before the end of a connection arrives`(way: String)
    throws
  {
    let server = try MoonportProcess.serving(OutboxTests.script)
    let client = try server.connect()
    try client.send("send a\nsend b\nwrite c\n\(way) d\nsend never\n")
    #expect(try client.receiveTextUntilEnd() == "a\nb\nc\nd\n")
    try server.stop()
  }

  @Test func `the bytes that wait and the messages sent are counted to the last one`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_message(conn, text)
        if text == "how many" then conn:send(conn:buffered()) else conn:send(text) end
      end
      """)
    let client = try server.connect()
    // One write of a few bytes arrives as one piece, so that nothing has gone out when the handler asks.
    try client.send("one\ntwo\nthree\nhow many\n")
    #expect(try client.receive(exactly: 17) == Array("one\ntwo\nthree\n14\n".utf8))
    let status = try server.status()
    #expect(status["messages_out"].integer == 4)
    #expect(status["bytes_out"].integer == 17)
    try server.stop()
  }

  @Test func `a client of another connection gets what is sent to it in between, and both keep their order`() throws {
    let server = try MoonportProcess.serving(
      """
      local other
      function h.on_message(conn, text)
        if text == "me" then other = conn return end
        conn:send(text)
        other:send("to you: " .. text)
        conn:send(text .. " again")
      end
      """)
    let (other, client) = (try server.connect(), try server.connect())
    try other.send("me\n")
    // Its handler has run once the same worker has answered.
    try eventually("the other one is known") { try server.status()["messages_in"].integer == 1 }
    let numbers = 0..<200
    try client.send(numbers.map { "\($0)\n" }.joined())
    for number in numbers {
      #expect(try client.receiveLine() == "\(number)")
      #expect(try client.receiveLine() == "\(number) again")
      #expect(try other.receiveLine() == "to you: \(number)")
    }
    try server.stop()
  }

  @Test func `no more is queued than the hard limit allows, and all that was is delivered`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_message(conn, text)
        local sent = 0
        while conn:send(text) do sent = sent + 1 assert(conn:buffered() <= 4000) end
        print("sent", sent)
        conn:close()
      end
      """, "codec = 'line', output_limit = { hard = 4000, soft = 4000, policy = 'drop_newest' }")
    let client = try server.connect()
    let text = String(repeating: "x", count: 500)
    try client.send("\(text)\n\(text)\n")
    try server.waitForOutput(containing: "sent")
    let received = try client.receiveUntilEnd().count
    #expect(server.output.contains("sent\t\(received / 501)\n") && received % 501 == 0, "\(server.output), \(received)")
    try server.stop()
  }
}
