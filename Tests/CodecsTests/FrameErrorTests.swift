import Codecs
import Testing

struct FrameErrorTests {
  @Test func `an error says in one sentence what is wrong`() {
    #expect("\(FrameError.tooLong(limit: 10))" == "the message is longer than max_length, 10 bytes")
    #expect(
      "\(FrameError.malformed(reason: "the length is negative"))" == "the bytes are no message: the length is negative")
  }

  @Test func `errors are equal when they say the same`() {
    #expect(FrameError.tooLong(limit: 1) == .tooLong(limit: 1))
    #expect(FrameError.tooLong(limit: 1) != .tooLong(limit: 2))
    #expect(FrameError.malformed(reason: "a") == .malformed(reason: "a"))
    #expect(FrameError.malformed(reason: "a") != .malformed(reason: "b"))
    #expect(FrameError.malformed(reason: "a") != .tooLong(limit: 1))
    #expect(FrameError.tooLong(limit: 1) != .malformed(reason: "a"))
  }
}
