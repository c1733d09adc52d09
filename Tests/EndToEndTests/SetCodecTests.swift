// conn:set_codec on the built program: which bytes the new codec is for, and whose it is.
//
// Must never know: anything but the program's command line, its streams and its sockets.

import TestSupport
import Testing

@Suite struct SetCodecTests {
  @Test func `set_codec applies to the bytes not yet cut, even of the same read`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_message(conn, message)
        if message == "netstring" then conn:set_codec { type = "netstring" } end
        if message == "fixed" then conn:set_codec { type = "fixed", length = 2 } end
        if message == "!!" then conn:set_codec "line" end
        if message == "own" then
          conn:set_codec {
            decode = function(b, p) local m, n = b:match("^(.-)|()", p) return m, n end,
            encode = function(m) return m .. "|" end,
          }
        end
        if message == "back" then conn:set_codec("line") end
        conn:write("<", message, ">")
      end
      """)
    let stream = "line\nnetstring\n3:a,b,5:fixed,abcd!!back\nown\nx|y\n|back|end\n"
    let expected = "<line><netstring><a,b><fixed><ab><cd><!!><back><own><x><y\n><back><end>"
    let whole = try server.connect()
    try whole.send(stream)
    #expect(String(decoding: try whole.receive(exactly: expected.utf8.count), as: UTF8.self) == expected)
    let pieces = try server.connect()
    pieces.setNoDelay()
    for byte in stream.utf8 { try pieces.send([byte]) }
    #expect(String(decoding: try pieces.receive(exactly: expected.utf8.count), as: UTF8.self) == expected)
  }

  @Test func `a decode that sets another codec and takes nothing has that one asked, though nothing more comes`() throws
  {
    let server = try MoonportProcess.serving(
      """
      function h.on_open(conn) current = conn end
      function h.on_message(conn, text) conn:send("got ", text) end
      """,
      "codec = { decode = function() current:set_codec('line') end, encode = function(text) return text end }")
    for ends in [false, true] {
      let client = try server.connect()
      try client.send("a\nb\n")
      if ends { try client.halfClose() }
      #expect(try client.receiveLines(2) == ["got a", "got b"])
      if !ends { #expect(try client.ask("c") == "got c") }
    }
  }

  @Test func `a codec for each length that a client names does not use up the worker's codecs`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_message(conn, text)
        local most = tonumber(text)
        if not most then return conn:send("got ", text) end
        for length = 1, most do conn:set_codec { type = "fixed", length = length } end
        conn:set_codec("line")
        conn:send("done")
      end
      """)
    let client = try server.connect()
    for _ in 0..<4 { #expect(try client.ask("40000") == "done") }
    #expect(try client.ask("x") == "got x")
  }

  @Test func `set_codec is framed by at once, and is its connection's own`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_message(conn, message)
        if message == "change" then conn:set_codec { type = "netstring" } end
        moonport.broadcast(message)
      end
      """)
    let first = try server.connect()
    let second = try server.connect()
    #expect(try second.ask("hello") == "hello")
    #expect(try first.receiveLine() == "hello")
    try first.send("change\n")
    #expect(String(decoding: try first.receive(exactly: 9), as: UTF8.self) == "6:change,")
    #expect(try second.receiveLine() == "change")
  }

  @Test func `thousands of connections may each set a codec of their own`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_message(conn, message)
        conn:set_codec {
          decode = function(b, p) if p <= #b then return b:sub(p), #b + 1 end end,
          encode = function(m) return m .. "\\n" end,
        }
        conn:send(message)
      end
      """)
    for index in 0..<3000 { #expect(try server.connect().ask("\(index)") == "\(index)") }
    let before = try server.residentBytes()
    for index in 0..<6000 { #expect(try server.connect().ask("\(index)") == "\(index)") }
    #expect(try server.residentBytes() - before < 3_000_000)
  }
}
