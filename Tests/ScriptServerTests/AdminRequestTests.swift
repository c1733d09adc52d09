// Which words make which request, and what a session makes of a client's bytes.

import ScriptServer
import Testing

@Suite("AdminRequest")
struct AdminRequestTests {
  @Test(
    "every request survives the way over the wire",
    arguments: [
      AdminRequest.reload, .rollback, .status(json: false), .status(json: true), .connections, .kick(id: 1),
      .kick(id: .max), .broadcast(text: "", room: nil), .broadcast(text: "a b\n", room: ""), .drain(seconds: nil),
      .drain(seconds: 0), .drain(seconds: 1.5), .stop, .ping,
    ])
  func roundTrip(request: AdminRequest) throws {
    #expect(try AdminRequest(words: request.words) == request)
  }

  @Test(
    "wrong words are an error that names the command",
    arguments: [
      ["reload", "x"], ["status", "xml"], ["status", "json", "json"], ["kick"], ["kick", "0"], ["kick", "-1"],
      ["kick", "1.5"], ["kick", "99999999999999999999"], ["broadcast"], ["broadcast", "a", "b", "c"], ["drain", "x"],
      ["drain", "-1"], ["drain", "nan"], ["drain", "inf"], ["drain", "1e300"], ["frobnicate"],
    ])
  func wrongWords(words: [String]) {
    let failure = #expect(throws: AdminFailure.self) { try AdminRequest(words: words) }
    #expect(failure?.message.contains(words[0]) == true)
  }

  @Test("no words at all are an error")
  func noWords() {
    #expect(throws: AdminFailure("the request is empty")) { try AdminRequest(words: []) }
  }

  @Test("the answer to ping says which server it is, whatever the script is called")
  func ping() {
    let ping = AdminPing(processID: 42, script: "my scripts/chat.lua")
    #expect(AdminPing(text: ping.text) == ping)
    for text in ["", "42", "x y", "-1 a", "99999999999 a"] { #expect(AdminPing(text: text) == nil) }
  }
}

@Suite("AdminSession")
struct AdminSessionTests {
  @Test("a request that arrives byte by byte becomes one request, and its reply is encoded once")
  func byteByByte() throws {
    var session = AdminSession()
    let bytes = try AdminProtocol.encodeRequest(["kick", "7"])
    for byte in bytes.dropLast() { #expect(session.receive([byte]) == .incomplete) }
    #expect(session.receive(bytes.suffix(1)) == .request(.kick(id: 7)))
    #expect(!session.isAnswered)
    let reply = AdminReply(status: 0, text: "closed 7")
    #expect(session.reply(reply) == AdminProtocol.encodeReply(reply))
    #expect(session.isAnswered)
  }

  @Test("bytes after the request are ignored")
  func trailingBytes() throws {
    var session = AdminSession()
    _ = session.receive(try AdminProtocol.encodeRequest(["stop"]))
    #expect(session.receive([1, 2, 3]) == .ignored)
    _ = session.reply(AdminReply(status: 0, text: ""))
    #expect(session.receive([1, 2, 3]) == .ignored)
  }

  @Test("bytes that are no request, and words that are no command, are answered with status 1 and the reason")
  func refused() throws {
    for bytes in [Array("GET / HTTP/1.1\r\n".utf8), try AdminProtocol.encodeRequest(["frobnicate"])] {
      var session = AdminSession()
      guard case .refused(let answer) = session.receive(bytes) else {
        Issue.record("the bytes were not refused")
        continue
      }
      guard case .complete(let reply) = AdminProtocol.decodeReply(answer) else {
        Issue.record("the refusal is no reply")
        continue
      }
      #expect(reply.status == 1)
      #expect(!reply.text.isEmpty)
      #expect(session.isAnswered)
    }
  }

  @Test("a session never holds more than the longest request")
  func bounded() {
    var session = AdminSession()
    #expect(session.receive(Array("1048576:".utf8)) == .incomplete)
    guard case .refused = session.receive([UInt8](repeating: 0x61, count: AdminSession.receivedBytesMax)) else {
      Issue.record("an endless request was not refused")
      return
    }
  }
}
