// What the admin channel's encoder and decoder promise: round trips and bounds. The fuzz tests beside this give them any bytes.

import ScriptServer
import Testing

@Suite("AdminProtocol")
struct AdminProtocolTests {
  @Test("a request decodes to the words it was made of, whatever they hold")
  func requestRoundTrip() throws {
    for words in [["status"], [], [""], ["broadcast", "a:b,c\n\0 ü 日本", "room"], ["x", "5:hello,"]] {
      let bytes = try AdminProtocol.encodeRequest(words)
      #expect(AdminProtocol.decodeRequest(bytes) == .complete(words))
    }
  }

  @Test("the bytes of a request are a netstring of netstrings")
  func requestBytes() throws {
    #expect(try AdminProtocol.encodeRequest(["kick", "12"]) == Array("12:4:kick,2:12,,".utf8))
  }

  @Test("every proper beginning of a message is incomplete")
  func prefixes() throws {
    let request = try AdminProtocol.encodeRequest(["broadcast", "hello", "lobby"])
    for count in 0..<request.count {
      #expect(AdminProtocol.decodeRequest(Array(request[..<count])) == .incomplete)
    }
    let reply = AdminProtocol.encodeReply(AdminReply(status: 1, text: "chat.lua:3: no"))
    for count in 0..<reply.count {
      #expect(AdminProtocol.decodeReply(Array(reply[..<count])) == .incomplete)
    }
  }

  @Test("a reply decodes to its status and text")
  func replyRoundTrip() {
    for reply in [AdminReply(status: 0, text: ""), AdminReply(status: 1, text: "chat.lua:3: nö\n\ttraceback")] {
      #expect(AdminProtocol.decodeReply(AdminProtocol.encodeReply(reply)) == .complete(reply))
    }
  }

  @Test(
    "bytes that can never become a message are refused at once",
    arguments: ["x", ":", "-1:", "+1:a,", " 1:a,", "01:a,", "00:,", "1:ab", "999999999", "1048577", "1:a,"])
  func invalid(text: String) {
    guard case .invalid = AdminProtocol.decodeRequest(Array(text.utf8)) else {
      Issue.record("\(text) was not refused")
      return
    }
  }

  @Test("what follows a message means nothing, whether it comes with it or later")
  func following() {
    #expect(AdminProtocol.decodeRequest(Array("7:4:ping,,x".utf8)) == .complete(["ping"]))
    #expect(AdminProtocol.decodeReply(Array("9:1:0,2:ok,,9".utf8)) == .complete(AdminReply(status: 0, text: "ok")))
  }

  @Test("a huge announced length is refused before its bytes arrive")
  func hugeLength() {
    #expect(AdminProtocol.decodeRequest(Array("1048576:".utf8)) == .incomplete)
    guard case .invalid = AdminProtocol.decodeReply(Array("67108865:".utf8)) else {
      Issue.record("a reply over its limit was not refused")
      return
    }
  }

  @Test("a request with too many words, too long, or not UTF-8 is refused on both sides")
  func requestBounds() {
    let words = [String](repeating: "a", count: AdminProtocol.requestWordsMax + 1)
    #expect(throws: AdminFailure.self) { try AdminProtocol.encodeRequest(words) }
    let long = String(repeating: "a", count: AdminProtocol.requestPayloadBytesMax)
    #expect(throws: AdminFailure.self) { try AdminProtocol.encodeRequest(["broadcast", long]) }
    let many = AdminProtocol.netstring(Array(String(repeating: "1:a,", count: words.count).utf8))
    guard case .invalid = AdminProtocol.decodeRequest(many) else {
      Issue.record("too many words were not refused")
      return
    }
    let notText = AdminProtocol.netstring(AdminProtocol.netstring([0xFF, 0xFE]))
    #expect(AdminProtocol.decodeRequest(notText) == .invalid("word 1 of the request is not UTF-8"))
  }

  @Test("a reply that is too long is cut at a character and says so")
  func longReply() {
    // Two bytes each, so that a cut at an odd place would split one.
    let text = "x" + String(repeating: "ü", count: AdminProtocol.replyPayloadBytesMax / 2)
    let bytes = AdminProtocol.encodeReply(AdminReply(status: 0, text: text))
    #expect(bytes.count <= AdminProtocol.replyPayloadBytesMax + AdminProtocol.framingBytesMax)
    guard case .complete(let reply) = AdminProtocol.decodeReply(bytes) else {
      Issue.record("the reply does not decode")
      return
    }
    #expect(reply.text.hasSuffix("ü\n(cut: the answer was longer than a reply can be)\n"))
    #expect(!reply.text.unicodeScalars.contains("\u{FFFD}"))
  }
}
