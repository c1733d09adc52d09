// Every codec of a script, on the built program: the same messages however the bytes are split, limits, malformed bytes, and
// what sending adds.
//
// Must never know: anything but the program's command line, its streams and its sockets.

import TestSupport
import Testing

/// A codec as a script names it, with bytes and the messages that they are.
struct CodecCase: Sendable, CustomTestStringConvertible {
  let codec: String
  let stream: [UInt8]
  let messages: [[UInt8]]

  init(_ codec: String, _ stream: String, _ messages: [String]) {
    self.init(codec, Array(stream.utf8), messages.map { Array($0.utf8) })
  }

  init(_ codec: String, _ stream: [UInt8], _ messages: [[UInt8]]) {
    self.codec = codec
    self.stream = stream
    self.messages = messages
  }

  var testDescription: String { codec }

  static let all: [CodecCase] = [
    CodecCase("\"line\"", "one\ntwo\r\n\n\r\nth\rree\r\r\n\0\n", ["one", "two", "", "", "th\rree\r", "\0"]),
    CodecCase("{ type = \"line\", max_length = 5 }", "12345\n12345\r\n1\n", ["12345", "12345", "1"]),
    CodecCase("{ type = \"delimiter\", delimiter = \"\\0\" }", "one\0\0two\n\0", ["one", "", "two\n"]),
    CodecCase(
      "{ type = \"delimiter\", delimiter = \"\\r\\n\\r\\n\" }", "one\r\n\r\n\r\n\r\r\n\r\ntwo\r\n\r\n",
      ["one", "\r\n\r", "two"]),
    CodecCase("{ type = \"fixed\", length = 3 }", "abcdef\0\n!", ["abc", "def", "\0\n!"]),
    CodecCase("{ type = \"fixed\", length = 1 }", "abc", ["a", "b", "c"]),
    CodecCase("{ type = \"length\", size = 1 }", [3, 1, 2, 3, 0, 1, 255], [[1, 2, 3], [], [255]]),
    CodecCase("{ type = \"length\", size = 2 }", [0, 2, 7, 8, 0, 0, 0, 1, 9], [[7, 8], [], [9]]),
    CodecCase(
      "{ type = \"length\", size = 2, endian = \"little\" }", [2, 0, 7, 8, 0, 0, 1, 0, 9], [[7, 8], [], [9]]),
    CodecCase("{ type = \"length\", size = 3 }", [0, 0, 2, 7, 8, 0, 0, 1, 9], [[7, 8], [9]]),
    CodecCase("{ type = \"length\", size = 4, endian = \"little\" }", [2, 0, 0, 0, 7, 8, 0, 0, 0, 0], [[7, 8], []]),
    CodecCase("{ type = \"length\", size = 8 }", [0, 0, 0, 0, 0, 0, 0, 2, 7, 8], [[7, 8]]),
    CodecCase("{ type = \"length\", size = 2, strip = 0 }", [0, 2, 7, 8, 0, 0], [[0, 2, 7, 8], [0, 0]]),
    CodecCase(
      "{ type = \"length\", size = 2, adjustment = -2, strip = 0 }", [0, 4, 7, 8, 0, 2], [[0, 4, 7, 8], [0, 2]]),
    CodecCase(
      "{ type = \"length\", size = 1, offset = 2, adjustment = 1 }", [5, 6, 1, 9, 8, 5, 6, 0, 7], [[9, 8], [7]]),
    CodecCase("{ type = \"netstring\" }", "3:abc,0:,11:hello\nworld,", ["abc", "", "hello\nworld"]),
    CodecCase(
      """
      { decode = function(bytes, position)
          local from, to = bytes:find("%d+;", position)
          if from then return bytes:sub(from, to - 1), to + 1 end
        end,
        encode = function(message) return message .. ";" end }
      """, "12;3;45678;", ["12", "3", "45678"]),
  ]
}

/// Answers each message with its bytes in hexadecimal, as a line, past the codec.
private let reporter = """
  function h.on_message(conn, message)
    conn:write((message:gsub(".", function(byte) return ("%02x"):format(byte:byte()) end)), "\\n")
  end
  function h.on_close(conn, reason) print("closed " .. reason) end
  """

private func hexadecimal(_ bytes: [UInt8]) -> String {
  bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
}

@Suite struct CodecTests {
  @Test(.seeded, arguments: CodecCase.all)
  func `the messages are the same whole, byte by byte and randomly split`(codec: CodecCase) throws {
    let server = try MoonportProcess.serving(reporter, "codec = \(codec.codec)")
    var random = SeededGenerator()
    let expected = codec.messages.map(hexadecimal)
    for split in 0..<6 {
      let client = try server.connect()
      client.setNoDelay()
      var rest = codec.stream[...]
      while !rest.isEmpty {
        let count = split == 0 ? rest.count : split == 1 ? 1 : Int.random(in: 1...min(rest.count, 5), using: &random)
        try client.send(Array(rest.prefix(count)))
        rest = rest.dropFirst(count)
      }
      #expect(try client.receiveLines(expected.count) == expected)
    }
  }

  @Test(arguments: CodecCase.all)
  func `a message is handed over as soon as its last byte is there, and no byte sooner`(codec: CodecCase) throws {
    let server = try MoonportProcess.serving(reporter, "codec = \(codec.codec)")
    let client = try server.connect()
    client.setNoDelay()
    try client.send(Array(codec.stream.dropLast()))
    let before = codec.messages.dropLast().map(hexadecimal)
    #expect(try client.receiveLines(before.count) == before)
    try client.send(Array(codec.stream.suffix(1)))
    #expect(try client.receiveLine() == codec.messages.last.map(hexadecimal))
  }

  @Test func `a message of many reads arrives whole, at the limit of each codec`() throws {
    let payload = [UInt8](repeating: UInt8(ascii: "m"), count: 300_000)
    let handler = "function h.on_message(conn, message) conn:write(#message, '\\n') end"
    for (codec, stream) in [
      ("{ type = \"line\", max_length = 300000 }", payload + Array("\r\n".utf8)),
      ("{ type = \"delimiter\", delimiter = \"ab\", max_length = 300000 }", payload + Array("ab".utf8)),
      ("{ type = \"fixed\", length = 300000 }", payload),
      ("{ type = \"length\", size = 4, max_length = 300004 }", [0, 4, 0x93, 0xe0] + payload),
      ("{ type = \"netstring\", max_length = 300000 }", Array("300000:".utf8) + payload + Array(",".utf8)),
    ] {
      let server = try MoonportProcess.serving(handler, "codec = \(codec)")
      let client = try server.connect()
      try client.send(stream + stream)
      #expect(try client.receiveLines(2) == ["300000", "300000"], "\(codec)")
    }
  }

  @Test func `"raw" hands over what arrived, and sends what it is given`() throws {
    let server = try MoonportProcess.serving("function h.on_message(conn, bytes) conn:send(bytes) end", "")
    let client = try server.connect()
    var random = SeededGenerator()
    let bytes = random.bytes(200_000)
    let sender = TestThread { try client.send(bytes) }
    #expect(try client.receive(exactly: bytes.count) == bytes)
    try sender.join()
  }

  @Test(arguments: [
    ("{ type = \"line\", max_length = 5 }", "123456"),
    ("{ type = \"line\", max_length = 5 }", "1\n123456\n"),
    ("\"line\"", String(repeating: "x", count: 65_537)),
    ("{ type = \"delimiter\", delimiter = \"--\", max_length = 5 }", "123456--"),
    ("{ type = \"length\", size = 1, max_length = 5 }", "\u{6}123456"),
    ("{ type = \"length\", size = 4 }", "\u{7f}\u{7f}\u{7f}\u{7f}"),
    ("{ type = \"netstring\", max_length = 5 }", "6:123456,"),
    ("{ type = \"netstring\" }", "99999999"),
    ("{ max_length = 5, decode = function() end, encode = function(m) return m end }", "123456"),
  ])
  func `beyond max_length the connection closes with "too long"`(codec: String, stream: String) throws {
    let server = try MoonportProcess.serving(reporter, "codec = \(codec)")
    let client = try server.connect()
    try client.send(stream)
    _ = try client.waitForEnd()
    try server.waitForOutput(containing: "closed too long\n")
    #expect(server.output == "closed too long\n")
  }

  @Test(arguments: [
    ("{ type = \"netstring\" }", "3:abcd"),
    ("{ type = \"netstring\" }", "x:abc,"),
    ("{ type = \"netstring\" }", ":"),
    ("{ type = \"netstring\" }", "03:abc,"),
    ("{ type = \"length\", size = 1, adjustment = -5 }", "\u{1}abc"),
    ("{ decode = function() error('on purpose') end, encode = function(m) return m end }", "x"),
    ("{ decode = function(b, p) return b, p end, encode = function(m) return m end }", "x"),
    ("{ decode = function(b, p) return b, #b + 2 end, encode = function(m) return m end }", "x"),
  ])
  func `bytes that cannot be a message close the connection with "error"`(codec: String, stream: String) throws {
    let server = try MoonportProcess.serving(reporter, "codec = \(codec)")
    let client = try server.connect()
    try client.send(stream)
    #expect(try client.waitForEnd() == .closed)
    try server.waitForOutput(containing: "closed error\n")
    try eventually("the log names the connection, once") {
      let log = server.errors.split(separator: "\n").dropFirst()
      return log.count == 1 && log.allSatisfy { contains(String($0), "id=") }
    }
  }

  @Test func `messages before the malformed bytes are handed over, and their replies arrive`() throws {
    let server = try MoonportProcess.serving(reporter, "codec = { type = \"netstring\" }")
    let client = try server.connect()
    try client.send("1:a,2:bc,boom")
    #expect(try client.receiveTextUntilEnd() == "61\n6263\n")
  }

  @Test func `a huge announced length allocates nothing ahead of its bytes`() throws {
    let server = try MoonportProcess.serving(
      reporter, "codec = { type = \"length\", size = 4, max_length = 2000000000 }")
    let before = try server.residentBytes()
    let clients = try (0..<50).map { _ in try server.connect() }
    for client in clients { try client.send([0x70, 0, 0, 0, 1, 2, 3]) }
    try eventually("all bytes arrived") {
      contains(try server.control("status", "--json").output, "\"bytes_in\":350,")
    }
    #expect(try server.residentBytes() - before < 10_000_000)
  }

  @Test(arguments: [
    ("\"raw\"", "abc"), ("\"line\"", "abc\n"), ("{ type = \"delimiter\", delimiter = \"<>\" }", "abc<>"),
    ("{ type = \"fixed\", length = 3 }", "abc"), ("{ type = \"length\", size = 1 }", "\u{3}abc"),
    ("{ type = \"length\", size = 2 }", "\0\u{3}abc"),
    ("{ type = \"length\", size = 3, endian = \"little\" }", "\u{3}\0\0abc"),
    ("{ type = \"length\", size = 4, endian = \"little\" }", "\u{3}\0\0\0abc"),
    ("{ type = \"length\", size = 8 }", "\0\0\0\0\0\0\0\u{3}abc"),
    ("{ type = \"length\", size = 2, adjustment = -2 }", "\0\u{5}abc"),
    ("{ type = \"netstring\" }", "3:abc,"),
    ("{ decode = function() end, encode = function(m) return '<' .. m .. '>' end }", "<abc>"),
  ])
  func `send, moonport.send and broadcast frame, write does not`(codec: String, framed: String) throws {
    let isScripted = contains(codec, "decode")
    let server = try MoonportProcess.serving(
      """
      function h.on_open(conn)
        conn:send(\(isScripted ? "'abc'" : "'a', 'b', 'c'"))
        moonport.send(conn.id, "abc")
        moonport.broadcast("abc")
        conn:write("a", "b", 1)
        moonport.write(conn.id, "c")
        conn:close()
      end
      """, "codec = \(codec)")
    #expect(try server.connect().receiveTextUntilEnd() == framed + framed + framed + "ab1c")
  }

  @Test func `what a codec cannot frame raises in send with the script's line`() throws {
    for (codec, message) in [
      ("{ type = \"fixed\", length = 3 }", "'abcd'"), ("{ type = \"length\", size = 1 }", "('x'):rep(256)"),
      ("{ type = \"length\", size = 1, offset = 1 }", "'x'"),
    ] {
      let server = try MoonportProcess.serving(
        """
        function h.on_open(conn)
          local ok, message = pcall(conn.send, conn, \(message))
          conn:write(tostring(ok) .. " " .. message .. "\\n")
          local ok, message = pcall(function()
            conn:send(\(message))
          end)
          conn:write(tostring(ok) .. " " .. message .. "\\n")
        end
        """, "codec = \(codec)")
      let client = try server.connect()
      let called = try client.receiveLine()
      #expect(called.hasPrefix("false ") && contains(called, "send"), "\(called)")
      let inScript = try client.receiveLine()
      #expect(contains(inScript, "main.lua:9: send: "), "\(inScript)")
    }
  }

  @Test func `a codec of the script may make messages of any type, and encode any`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_message(conn, message) conn:send({ #message, message[1], sum = 0 }) end
      function h.on_error(conn, message) conn:write("error: " .. message:gsub("\\n.*", "") .. "\\n") end
      """,
      """
      codec = {
        decode = function(bytes, position)
          local line, after = bytes:match("^([^\\n]*)\\n()", position)
          if not line then return end
          local words = {}
          for word in line:gmatch("%S+") do words[#words + 1] = word end
          return words, after
        end,
        encode = function(message)
          if type(message) == "number" then return message end
          return table.concat(message, ",") .. "\\n"
        end,
      }
      """)
    let client = try server.connect()
    #expect(try client.ask("a b c") == "3,a")
    #expect(try client.ask("x") == "1,x")
  }

  @Test func `encode that fails or returns no string raises in send`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_message(conn, message)
        local ok, problem = pcall(function() conn:send(message) end)
        conn:write(problem, "\\n")
      end
      """,
      """
      codec = {
        decode = function(b, p) local s = b:find(";", p, true) if s then return b:sub(p, s - 1), s + 1 end end,
        encode = function(m) if m == "fail" then error("my encode") end return m ~= "none" and m or nil end,
      }
      """)
    let client = try server.connect()
    try client.send("fail;")
    #expect(contains(try client.receiveLine(), "main.lua:5: my encode"))
    try client.send("none;")
    #expect(contains(try client.receiveLine(), "main.lua:5: encode must return a string, not nil"))
  }

  @Test(arguments: [
    ("return 'm'", "an integer from 2 to 6 here, not nil"), ("return 'm', p", "an integer from 2 to 6 here, not 1"),
    ("return 'm', #b + 2", "an integer from 2 to 6 here, not 7"),
    ("return nil, 2", "a message and the next position, or nothing"),
  ])
  func `a decode that returns nonsense is named with its place`(_ body: String, _ reason: String) throws {
    let server = try MoonportProcess.serving(
      "function h.on_message(conn, message) conn:send(message) end",
      "codec = {\n decode = function(b, p) if #b == 5 then \(body) end end,\n encode = function(m) return m end }")
    let client = try server.connect()
    try client.send("hello")
    #expect(try client.waitForEnd() == .closed)
    try server.waitForErrors(containing: "main.lua:4: decode must return ")
    try server.waitForErrors(containing: reason)
  }

  @Test(arguments: [
    ("\"lines\"", "unknown codec \"lines\""), ("{ type = \"line\", max = 3 }", "unknown option \"max\""),
    ("{ type = \"line\", max_length = \"3\" }", "option 'max_length' must be an integer, not \"3\""),
    ("{ type = \"line\", max_length = 0 }", "max_length"), ("{ type = \"delimiter\" }", "delimiter"),
    ("{ type = \"delimiter\", delimiter = \"\" }", "delimiter"),
    ("{ type = \"delimiter\", delimiter = (\"x\"):rep(17) }", "delimiter"), ("{ type = \"fixed\" }", "length"),
    ("{ type = \"fixed\", length = -1 }", "length"), ("{ type = \"length\" }", "size"),
    ("{ type = \"length\", size = 5 }", "size"), ("{ type = \"length\", size = 2, endian = \"middle\" }", "endian"),
    ("{ type = \"length\", size = 2, offset = -1 }", "offset"), ("{ decode = print }", "encode"),
    ("{ decode = 1, encode = print }", "decode"), ("{}", "unknown codec"), ("1", "codec"),
  ])
  func `a wrong codec is an error of the script's line while it loads, and of set_codec's line later`(
    codec: String, problem: String
  ) throws {
    let folder = try TemporaryFolder()
    let path = try folder.write(
      "main.lua",
      "\nlocal moonport = require 'moonport'\nmoonport.listen { address = ':0', codec = \(codec) }\nreturn {}\n")
    let result = try MoonportProcess.runTool(["check", path])
    #expect(result.status == .exited(1))
    #expect(contains(result.errors + result.output, "main.lua:3: "), "\(result)")
    #expect(contains(result.errors + result.output, problem), "\(result)")
    let server = try MoonportProcess.serving(
      """
      function h.on_message(conn, message)
        conn:set_codec(\(codec))
      end
      function h.on_error(conn, message) conn:send((message:gsub("\\n.*", ""))) end
      """)
    let reported = try server.connect().ask("x")
    #expect(contains(reported, "main.lua:6: ") && contains(reported, problem), "\(reported)")
  }
}
