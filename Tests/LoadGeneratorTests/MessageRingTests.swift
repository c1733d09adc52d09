// What is sent, and what passes for its echo.

import Codecs
import Testing

@testable import LoadGenerator

@Suite struct MessageRingTests {
  private func plan(_ codec: Codec, bytes: Int, inFlight: Int = 1) -> LoadPlan {
    var plan = LoadPlan()
    plan.codec = codec
    plan.messageBytes = bytes
    plan.inFlight = inFlight
    return plan
  }

  @Test(arguments: [1, 5, 64, 1000, 70_000], [1, 16])
  func `each window of messages is cut into the messages again`(bytes: Int, inFlight: Int) throws {
    let field = try LengthField(size: 3)
    let codecs: [Codec] = [.line(maxLength: 100_000), .netstring(maxLength: 100_000), .lengthField(field)]
    for codec in codecs {
      let ring = try MessageRing(plan(codec, bytes: bytes, inFlight: inFlight))
      for message in 0..<ring.messageCount {
        let position = message * ring.frameBytes
        let window = Array(ring.bytes(from: position, count: inFlight * ring.frameBytes))
        var decoder = FrameDecoder()
        let step = window.withUnsafeBytes { decoder.next(codec, in: $0) }
        guard case .message(let range, let consumed) = step else { throw LoadError("\(step)") }
        #expect(consumed == ring.frameBytes)
        let payload = Array(ring.payload(at: position))
        #expect(Array(window[range]) == payload)
        #expect(range.count == bytes)
      }
    }
  }

  @Test func `neighbours differ, even the last and the first`() throws {
    for bytes in [1, 64, 40_000] {
      let ring = try MessageRing(plan(.raw, bytes: bytes))
      for message in 0..<ring.messageCount {
        let next = (message + 1) % ring.messageCount
        let one = Array(ring.payload(at: message * ring.frameBytes))
        let other = Array(ring.payload(at: next * ring.frameBytes))
        #expect(one != other)
      }
    }
  }

  @Test func `any piece of the stream matches at its place, across the ring's end too, and nowhere else`() throws {
    let ring = try MessageRing(plan(.line(maxLength: 100), bytes: 9, inFlight: 3))
    let stream = (0..<3).flatMap { _ in Array(ring.bytes(from: 0, count: ring.periodBytes)) }
    for start in stride(from: 0, to: ring.periodBytes, by: 7) {
      for count in [1, 9, 10, 11, 400, ring.periodBytes + 50] {
        let piece = Array(stream[start..<start + count])
        let isFound = piece.withUnsafeBytes { ring.matches($0, at: start) }
        #expect(isFound)
        let isElsewhere = piece.withUnsafeBytes { ring.matches($0, at: (start + 10) % ring.periodBytes) }
        // A line end alone is the same everywhere.
        #expect(!isElsewhere || count == 1)
        var changed = piece
        changed[count - 1] ^= 1
        let isChangedFound = changed.withUnsafeBytes { ring.matches($0, at: start) }
        #expect(!isChangedFound)
      }
    }
  }

  @Test func `a given text is every message`() throws {
    var plan = plan(.line(maxLength: 100), bytes: 64)
    plan.text = Array("ping".utf8)
    let ring = try MessageRing(plan)
    #expect(ring.frameBytes == 5)
    #expect(ring.messageCount == 1)
    #expect(String(decoding: ring.payload(at: 0), as: UTF8.self) == "ping")
  }
}

@Suite struct EchoDecoderTests {
  @Test func `wrong answers are counted one by one, and the first is shown`() throws {
    var plan = LoadPlan()
    plan.text = Array("ping".utf8)
    let ring = try MessageRing(plan)
    let begin = Array("pi".utf8)
    let decoder = begin.withUnsafeBytes { EchoDecoder(plan.codec, position: 0, arrived: $0) }
    let outcome = Array("xg\nping\npong\npi".utf8).withUnsafeBytes { decoder.add($0, ring: ring) }
    #expect(outcome.messages == 3)
    #expect(outcome.mismatches == 2)
    #expect(outcome.difference == #"sent "ping" (4 bytes), got back "pixg" (4 bytes)"#)
    #expect(outcome.failure == nil)
    let rest = Array("ng\n".utf8).withUnsafeBytes { decoder.add($0, ring: ring) }
    #expect(rest.messages == 1)
    #expect(rest.mismatches == 0)
  }

  @Test func `bytes that are no message of the codec end it with a reason`() throws {
    var plan = LoadPlan()
    plan.codec = .netstring(maxLength: 100)
    let ring = try MessageRing(plan)
    let none: [UInt8] = []
    let decoder = none.withUnsafeBytes { EchoDecoder(plan.codec, position: 0, arrived: $0) }
    let outcome = Array("oops".utf8).withUnsafeBytes { decoder.add($0, ring: ring) }
    #expect(outcome.failure?.hasPrefix("what came back is no message of codec netstring: ") == true)
  }

  @Test func `without messages of its own, raw is cut at the size that was sent`() throws {
    var plan = LoadPlan()
    plan.codec = .raw
    plan.text = Array("abcd".utf8)
    let ring = try MessageRing(plan)
    let none: [UInt8] = []
    let decoder = none.withUnsafeBytes { EchoDecoder(plan.codec, position: 0, arrived: $0) }
    let outcome = Array("abcdabxdabcd".utf8).withUnsafeBytes { decoder.add($0, ring: ring) }
    #expect(outcome.messages == 3)
    #expect(outcome.mismatches == 1)
  }
}
