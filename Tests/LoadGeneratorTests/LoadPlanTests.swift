// What a load may be, and what is said of one that it may not be.

import Codecs
import Testing

@testable import LoadGenerator

@Suite struct LoadPlanTests {
  @Test func `the plan without any choice is one that can be carried out`() throws {
    try LoadPlan().check()
  }

  @Test(
    arguments: [
      (\LoadPlan.connections, 0, "--connections takes 1 to 60000, not 0"),
      (\.connections, 60_001, "--connections takes 1 to 60000, not 60001"),
      (\.messageBytes, -1, "--size takes 0 to 16777216, not -1"),
      (\.inFlight, 0, "--pipeline takes 1 to 65536, not 0"),
      (\.inFlight, 65_537, "--pipeline takes 1 to 65536, not 65537"),
    ] as [(WritableKeyPath<LoadPlan, Int> & Sendable, Int, String)])
  func `a number outside its bounds is refused with them`(
    option: WritableKeyPath<LoadPlan, Int> & Sendable, value: Int, message: String
  ) {
    var plan = LoadPlan()
    plan[keyPath: option] = value
    #expect(throws: LoadError(message)) { try plan.check() }
  }

  @Test(arguments: [0, 86_401, Double.nan, .infinity]) func `a duration outside its bounds is refused`(seconds: Double)
  {
    var plan = LoadPlan()
    plan.seconds = seconds
    #expect(throws: LoadError.self) { try plan.check() }
  }

  @Test(arguments: [0, -1, 1e9, Double.nan]) func `a rate outside its bounds is refused`(rate: Double) {
    var plan = LoadPlan()
    plan.rate = rate
    #expect(throws: LoadError.self) { try plan.check() }
  }

  @Test func `what is in flight on all connections together has a bound`() {
    var plan = LoadPlan()
    plan.connections = 60_000
    plan.inFlight = 65_536
    plan.messageBytes = 1
    #expect(throws: LoadError("--connections times --pipeline may be at most 8388608")) { try plan.check() }
  }

  @Test func `what a connection sends at once has a bound`() {
    var plan = LoadPlan()
    plan.codec = .raw
    plan.messageBytes = 1 << 20
    plan.inFlight = 65
    #expect(throws: LoadError("65 messages of 1048576 bytes at once are more than 64 MiB")) { try plan.check() }
  }

  @Test func `a message that its codec would cut elsewhere is refused`() throws {
    var plan = LoadPlan()
    plan.text = Array("a\nb".utf8)
    #expect(throws: LoadError("--message with the codec line cannot hold a line end")) { try plan.check() }
    plan.text = Array("a\r".utf8)
    #expect(throws: LoadError.self) { try plan.check() }
    plan.codec = .delimiter(try #require(Delimiter(Array("||".utf8))), maxLength: 100)
    plan.text = Array("a|b||".utf8)
    #expect(throws: LoadError("--message cannot hold the codec's delimiter")) { try plan.check() }
    plan.text = Array("a|b|".utf8)
    try plan.check()
  }

  @Test func `a message that no read could tell apart is refused`() {
    var plan = LoadPlan()
    plan.codec = .raw
    plan.messageBytes = 0
    #expect(throws: LoadError("a message of this codec needs at least 1 byte")) { try plan.check() }
  }
}

@Suite struct CodecTextTests {
  private func codec(_ text: String, bytes: Int = 64) throws(LoadError) -> Codec {
    try Codec(commandText: text, payloadBytes: bytes)
  }

  @Test func `each form is its codec`() throws {
    #expect(try codec("raw") == .raw)
    #expect(try codec("line") == .line(maxLength: 65_536))
    #expect(try codec("fixed") == .fixed(length: 64))
    #expect(try codec("netstring") == .netstring(maxLength: 1_048_576))
    #expect(try codec("length") == .lengthField(LengthField(size: 4)))
    #expect(try codec("length:2") == .lengthField(LengthField(size: 2)))
    #expect(try codec("length:8:little") == .lengthField(LengthField(size: 8, endian: .little)))
    #expect(try codec("delimiter:\\r\\n") == .delimiter(#require(Delimiter([13, 10])), maxLength: 65_536))
    #expect(try codec("delimiter:\\0") == .delimiter(#require(Delimiter([0])), maxLength: 65_536))
    #expect(try codec("delimiter:a:b") == .delimiter(#require(Delimiter(Array("a:b".utf8))), maxLength: 65_536))
  }

  @Test func `a codec takes the messages of the load, however long`() throws {
    #expect(try codec("line", bytes: 100_000) == .line(maxLength: 100_000))
    #expect(try codec("netstring", bytes: 2_000_000).maxLength >= 2_000_000)
  }

  @Test(arguments: ["", "lines", "length:3:middle", "length:5", "length:x", "raw:1", "delimiter:", "fixed:3"])
  func `what is no codec is refused by its name`(text: String) {
    #expect { try codec(text) } throws: { "\(($0 as? LoadError)?.message ?? "")".hasPrefix("--codec \(text): ") }
  }
}
