// What the operator's commands make of any bytes that a server, or what passes for one, may send: replies, damaged replies and noise,
// to the parser and over a socket. MOONPORT_FUZZ_SECONDS sets how long (default 2), MOONPORT_SEED repeats a case.

import ScriptServer
import TestSupport
import Testing

@Suite("Admin replies under random input")
struct AdminReplyFuzzTests {
  /// Of this many cases one is sent over a socket as well.
  private static let casesForAnExchange = 4
  /// Of this many exchanges one announces the longest reply and floods the client.
  private static let exchangesForAFlood = 3000
  /// How long a client may take that has all it will ever get, in seconds.
  private static let secondsMax = 60.0

  private struct Tally {
    var replies = 0
    var refused = 0
    var incomplete = 0
    var exchanges = 0
  }

  @Test("any bytes are one reply, an error or a beginning, and a command ends with the reply or one line of error")
  func fuzz() throws {
    var run = FuzzRun("admin reply fuzz")
    var tally = Tally()
    let folder = TemporaryFolder()
    let server = try AdminRogueServer(path: folder.path("admin"))
    while var random = run.next() {
      let stream = random.replyStream()
      let expected = referenceReply(stream)
      try checkParser(stream, expected, random)
      if random.once(in: Self.casesForAnExchange) {
        let floods = random.once(in: Self.exchangesForAFlood)
        try checkExchange(floods ? random.flood() : random.conduct(stream, expected), server, &random)
        tally.exchanges += 1
      }
      switch expected {
      case .incomplete: tally.incomplete += 1
      case .broken: tally.refused += 1
      case .message: tally.replies += 1
      }
    }
    try server.stop()
    #expect(run.cases < 1000 || (tally.replies > 0 && tally.refused > 0 && tally.incomplete > 0))
    print(
      "admin reply fuzz: seed \(run.seed), \(run.cases) streams, \(tally.replies) replies, \(tally.refused) refused,"
        + " \(tally.incomplete) incomplete; \(tally.exchanges) over a socket")
  }

  /// The parser is given the stream as it grows, since the client does that.
  private func checkParser(
    _ stream: [UInt8], _ expected: ReferenceVerdict<AdminReply>, _ random: SeededGenerator
  ) throws {
    for count in 0...stream.count {
      let decoded = AdminProtocol.decodeReply(Array(stream[..<count]))
      let isRight =
        switch (decoded, expected) {
        case (.incomplete, .incomplete): true
        case (.incomplete, .message(_, let bytes)), (.incomplete, .broken(let bytes)): count < bytes
        case (.complete(let reply), .message(let other, let bytes)): reply == other && count >= bytes
        case (.invalid(let reason), .broken(let bytes)): !reason.isEmpty && count >= bytes
        default: false
        }
      try requireInCase(random, isRight, "\(decoded) after \(count) bytes of \(stream), not \(expected)")
      if case .complete(let reply) = decoded, let ping = AdminPing(text: reply.text) {
        try requireInCase(random, AdminPing(text: ping.text) == ping, "\(ping) is not what it says")
      }
    }
  }

  private func checkExchange(_ conduct: RogueConduct, _ server: AdminRogueServer, _ random: inout SeededGenerator)
    throws
  {
    let request = conduct.request
    server.next(conduct)
    var outcome: AdminReply?
    var failure = ""
    let begun = ContinuousClock.now
    do throws(AdminFailure) {
      outcome = try AdminClient.exchange(request, path: server.path, timeoutSeconds: Self.secondsMax)
    } catch {
      failure = error.message
    }
    let seconds = ContinuousClock.now - begun
    let what = "\(request) with \(conduct) came to \(outcome.map { "\($0)" } ?? failure) in \(seconds)"
    try requireInCase(random, seconds < .seconds(Self.secondsMax / 2), what)
    switch conduct.expected {
    case .message(let reply, _): try requireInCase(random, outcome == reply, what)
    case .incomplete where request.endsServer && conduct.bytes.isEmpty:
      try requireInCase(random, outcome == AdminReply(status: 0, text: "the server has ended"), what)
    case .incomplete: try requireInCase(random, failure.contains("closed the connection"), what)
    case .broken: try requireInCase(random, failure.contains("makes no sense"), what)
    }
  }
}

extension SeededGenerator {
  /// A reply as a server sends it, often damaged or of other parts; or noise.
  fileprivate mutating func replyStream() -> [UInt8] {
    if once(in: 12) { return bytes(Int.random(in: 0...30, using: &self)) }
    var status = pick([[UInt8(ascii: "0")], [UInt8(ascii: "1")]])
    if once(in: 12) { status = pick([[], Array("2".utf8), Array("00".utf8), [0], word()]) }
    var text = once(in: 3) ? Array("\(Int32.random(in: -5 ... .max, using: &self)) chat.lua".utf8) : []
    while once(in: 2) { text += word() }
    var parts = [status, text]
    if once(in: 12) { parts.append(word()) }
    if once(in: 12) { parts.remove(at: Int.random(in: 0..<parts.count, using: &self)) }
    var stream = message(parts)
    if once(in: 2) { damage(&stream) }
    return stream
  }

  /// A way to send `stream` after which the client can know all that it needs to end.
  fileprivate mutating func conduct(_ stream: [UInt8], _ expected: ReferenceVerdict<AdminReply>) -> RogueConduct {
    let requests: [AdminRequest] = [
      .reload, .status(json: true), .connections, .kick(id: 1), .ping, .drain(seconds: nil), .stop,
    ]
    let request = pick(requests)
    var ends: [RogueConduct.End] = [.close, .shutdown]
    switch expected {
    case .incomplete: break
    case .message where request.endsServer: break
    // Enough was said: a client that waits for more waits for ever.
    case .message, .broken: ends.append(.whenTheClientDoes)
    }
    return RogueConduct(
      request: request, bytes: stream, chunks: chunks(of: stream.count, chunkMax: pick([1, 8, 1000])),
      expected: expected,
      readsFirst: !once(in: 4), end: pick(ends))
  }

  /// The longest reply that can be announced, and then bytes as fast as they are taken.
  fileprivate mutating func flood() -> RogueConduct {
    let bytes = Array("\(AdminProtocol.replyPayloadBytesMax):1:0,".utf8)
    let rest = AdminProtocol.replyPayloadBytesMax + (1 << 20)
    return RogueConduct(
      request: once(in: 2) ? .status(json: false) : .stop, bytes: bytes, chunks: [bytes.count],
      expected: .broken(bytes: AdminProtocol.replyPayloadBytesMax), floodBytes: rest)
  }
}
