// Every codec under every way to cut its stream: at each byte, and with all system calls moving a single byte.
//
// Must never know: anything but the program's command line, its streams and its sockets.

import Glibc
import TestSupport
import Testing

@Suite(.serialized) struct TortureCodecTests {
  /// A codec, a sample of its stream, and the messages in it.
  private static let samples: [(codec: String, bytes: String, messages: [String])] = [
    ("'line'", "one\ntwo\r\n\n\r\rfour\n", ["one", "two", "", "\r\rfour"]),
    ("{ type = 'delimiter', delimiter = '--' }", "a-b-----c--", ["a-b", "", "-c"]),
    ("{ type = 'fixed', length = 4 }", "abcdefgh1234", ["abcd", "efgh", "1234"]),
    ("{ type = 'length', size = 2 }", "\0\u{3}abc\0\0\0\u{5}hello", ["abc", "", "hello"]),
    ("{ type = 'length', size = 4, endian = 'little' }", "\u{2}\0\0\0hi\u{1}\0\0\0!", ["hi", "!"]),
    ("{ type = 'length', size = 1, offset = 2, adjustment = 1, strip = 2 }", "zz\u{2}abczz\0c", ["\u{2}abc", "\0c"]),
    ("'netstring'", "5:hello,0:,12:twelve bytes,", ["hello", "", "twelve bytes"]),
    (
      "{ decode = function(b, at) local s, e = b:find(';', at, true) if s then return b:sub(at, s - 1), e + 1 end end,"
        + " encode = function(m) return m end }", "x;yy;;zzz;", ["x", "yy", "", "zzz"]
    ),
  ]

  private func serve(_ environment: [String: String?] = [:]) throws -> MoonportProcess {
    let listeners = TortureCodecTests.samples.map {
      "moonport.listen { address = '127.0.0.1:0', codec = \($0.codec) }\n"
    }
    return try MoonportProcess(
      script: """
        local moonport = require 'moonport'
        \(listeners.joined())
        return { on_message = function(conn, text) conn:write("<", text, ">") end }
        """
    ) {
      $0.listeners = TortureCodecTests.samples.count
      $0.workers = 1
      $0.environment = environment
    }
  }

  private func expected(_ messages: [String]) -> String { messages.map { "<\($0)>" }.joined() }

  @Test func `a stream that is split in two at any byte makes the same messages, for every codec`() throws {
    let server = try serve()
    try Siege(name: "every 1-byte split of every codec", server: server).withstand {
      var splits = 0
      for (index, sample) in TortureCodecTests.samples.enumerated() {
        let bytes = Array(sample.bytes.utf8)
        for split in 1..<bytes.count {
          let client = try server.connect(listener: index)
          client.setNoDelay()
          try client.send(Array(bytes[..<split]))
          // Long enough for the server to have read the first part, mostly: which is what is wanted.
          usleep(1000)
          try client.send(Array(bytes[split...]))
          try client.halfClose()
          #expect(try client.receiveTextUntilEnd() == expected(sample.messages), "\(sample.codec) split at \(split)")
          splits += 1
        }
      }
      return "\(splits) of \(splits) splits gave the same messages"
    }
  }

  @Test(.enabled(if: Preload.isPossible, "nothing can be preloaded before a sanitizer"))
  func `with all system calls moving a single byte, every codec, broadcasts, commands and reloads work`() throws {
    let server = try serve(Preload.faults("bytes=1"))
    try Siege(name: "single-byte system calls", server: server).withstand {
      for (index, sample) in TortureCodecTests.samples.enumerated() {
        let client = try server.connect(listener: index)
        try client.send(Array(sample.bytes.utf8))
        try client.halfClose()
        #expect(try client.receiveTextUntilEnd() == expected(sample.messages), "\(sample.codec)")
      }
      let client = try server.connect()
      try client.send("after all\n")
      #expect(String(decoding: try client.receive(exactly: 11), as: UTF8.self) == "<after all>")
      try server.done("reload")
      return "\(TortureCodecTests.samples.count) codecs, status and reload"
    }
  }
}
