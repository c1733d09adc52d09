// What the server makes of any bytes that come over its admin socket, cut in any way: requests, damaged requests and noise against a
// second reader of the same protocol. MOONPORT_FUZZ_SECONDS sets how long (default 2), MOONPORT_SEED repeats a case.

import ScriptServer
import TestSupport
import Testing

@Suite("Admin requests under random input")
struct AdminRequestFuzzTests {
  /// A refusal is a sentence, whatever it quotes.
  private static let refusalBytesMax = 400
  /// Of this many cases one is as long as a request may be, or a little longer.
  private static let casesForALongOne = 2000

  private struct Tally {
    var requests = 0
    var refused = 0
    var incomplete = 0
  }

  @Test("any bytes are one request, one refusal or a beginning, the same however they are cut")
  func fuzz() throws {
    var run = FuzzRun("admin request fuzz")
    var tally = Tally()
    while var random = run.next() {
      let isLong = random.once(in: Self.casesForALongOne)
      let stream = isLong ? random.longRequest() : random.requestStream()
      let expected = referenceRequest(stream)
      var splits = [[stream.count], random.chunks(of: stream.count, chunkMax: isLong ? 65_536 : 3)]
      splits.append(random.chunks(of: stream.count, chunkMax: max(1, stream.count)))
      if !isLong { splits.append([Int](repeating: 1, count: stream.count)) }
      for chunks in splits where !stream.isEmpty {
        do {
          try feed(stream, chunks, expected, &random)
        } catch {
          throw TestFailure(
            "run again with MOONPORT_SEED=\(random.seed): \(error); stream \(stream.prefix(2000)), \(chunks)")
        }
      }
      count(expected, &tally)
    }
    #expect(run.cases < 1000 || (tally.requests > 0 && tally.refused > 0 && tally.incomplete > 0))
    print(
      "admin request fuzz: seed \(run.seed), \(run.cases) streams, \(tally.requests) requests, \(tally.refused) refused,"
        + " \(tally.incomplete) incomplete")
  }

  private func count(_ verdict: ReferenceVerdict<[String]>, _ tally: inout Tally) {
    switch verdict {
    case .incomplete: tally.incomplete += 1
    case .broken: tally.refused += 1
    case .message(let words, _):
      if (try? AdminRequest(words: words)) == nil { tally.refused += 1 } else { tally.requests += 1 }
    }
  }

  /// Gives a session `stream` in `chunks` and compares each event with what the reference says.
  private func feed(
    _ stream: [UInt8], _ chunks: [Int], _ expected: ReferenceVerdict<[String]>, _ random: inout SeededGenerator
  ) throws {
    let decidedAt: Int
    switch expected {
    case .incomplete: decidedAt = .max
    case .message(_, let bytes), .broken(let bytes): decidedAt = bytes
    }
    var session = AdminSession()
    var fed = 0
    for count in chunks {
      let event = session.receive(stream[fed..<fed + count])
      let isDecided = fed < decidedAt && decidedAt <= fed + count
      fed += count
      switch event {
      case .incomplete: try require(fed < decidedAt, "incomplete after \(fed) bytes, decided after \(decidedAt)")
      case .ignored: try require(fed - count >= decidedAt, "ignored before the request, after \(fed) bytes")
      case .request(let request):
        try require(isDecided, "a request after \(fed) bytes, not \(decidedAt)")
        try check(request, expected)
        try answer(&session, &random)
      case .refused(let bytes):
        try require(isDecided, "refused after \(fed) bytes, not \(decidedAt)")
        try check(refusal: bytes, expected)
        try require(session.isAnswered, "refused and not answered")
      }
    }
  }

  private func check(_ request: AdminRequest, _ expected: ReferenceVerdict<[String]>) throws {
    guard case .message(let words, _) = expected else { throw TestFailure("\(request) of bytes that are none") }
    try require(try AdminRequest(words: words) == request, "\(request) of \(words)")
    try require(try AdminRequest(words: request.words) == request, "\(request) does not survive the way over the wire")
    let bytes = try AdminProtocol.encodeRequest(request.words)
    try require(
      referenceRequest(bytes) == .message(request.words, bytes: bytes.count), "\(request) encoded as \(bytes)")
  }

  private func check(refusal bytes: [UInt8], _ expected: ReferenceVerdict<[String]>) throws {
    if case .message(let words, _) = expected {
      try require((try? AdminRequest(words: words)) == nil, "\(words) was refused")
    }
    guard case .message(let reply, bytes.count) = referenceReply(bytes) else {
      throw TestFailure("the refusal is no reply: \(bytes)")
    }
    try require(reply.status == 1 && !reply.text.isEmpty, "the refusal says \(reply)")
    try require(reply.text.utf8.count <= Self.refusalBytesMax, "the refusal has \(reply.text.utf8.count) bytes")
    try require(
      reply.text.unicodeScalars.allSatisfy { $0.value >= 0x20 && $0.value != 0x7f }, "the refusal steers a terminal")
  }

  /// Answers the request, as the server does sooner or later.
  private func answer(_ session: inout AdminSession, _ random: inout SeededGenerator) throws {
    try require(!session.isAnswered, "answered before the answer")
    let reply = AdminReply(
      status: random.once(in: 2) ? 0 : 1, text: String(decoding: random.word(), as: UTF8.self))
    let bytes = session.reply(reply)
    try require(referenceReply(bytes) == .message(reply, bytes: bytes.count), "\(reply) encoded as \(bytes)")
    try require(session.isAnswered, "not answered after the answer")
  }

  private func require(_ condition: Bool, _ problem: @autoclosure () -> String) throws {
    if !condition { throw TestFailure(problem()) }
  }
}

extension SeededGenerator {
  /// The words of a request as a good client sends them.
  private mutating func requestWords() -> [[UInt8]] {
    let id = Int64.random(in: 1 ... .max, using: &self)
    let seconds = Double.random(in: 0...AdminRequest.drainSecondsMax, using: &self)
    let text = String(decoding: word(), as: UTF8.self)
    let requests: [AdminRequest] = [
      .reload, .rollback, .status(json: false), .status(json: true), .connections, .kick(id: id),
      .broadcast(text: text, room: nil), .broadcast(text: text, room: text), .drain(seconds: nil),
      .drain(seconds: seconds),
      .stop, .ping,
    ]
    return pick(requests).words.map { Array($0.utf8) }
  }

  /// A request, often with other words or damaged, at times followed by more; or noise.
  fileprivate mutating func requestStream() -> [UInt8] {
    if once(in: 10) { return noise() }
    var words = requestWords()
    if once(in: 3) {
      for _ in 0..<pick([1, 1, 2, 15, 17]) {
        let place = Int.random(in: 0...words.count, using: &self)
        words.insert(word(), at: place)
      }
    }
    if once(in: 6) { words.remove(at: Int.random(in: 0..<words.count, using: &self)) }
    var stream = message(words)
    if once(in: 2) { damage(&stream) }
    return stream
  }

  private mutating func noise() -> [UInt8] {
    let alphabet = Array("0123456789:,::,,a".utf8) + [0xff]
    return (0..<Int.random(in: 0...30, using: &self)).map { _ in pick(alphabet) }
  }

  /// A broadcast whose payload is the longest that there may be, or a byte more or less, with more behind it at times.
  fileprivate mutating func longRequest() -> [UInt8] {
    let framing = AdminProtocol.netstring(Array("broadcast".utf8)).count + "1048560:,".utf8.count
    let count = AdminProtocol.requestPayloadBytesMax - framing + pick([-1, 0, 0, 1, 2])
    let text = [UInt8](repeating: UInt8(ascii: "t"), count: count)
    let parts = AdminProtocol.netstring(Array("broadcast".utf8)) + AdminProtocol.netstring(text)
    var stream = AdminProtocol.netstring(parts)
    if once(in: 2) { stream += bytes(Int.random(in: 1...100, using: &self)) }
    if once(in: 4) { damage(&stream) }
    return stream
  }
}
