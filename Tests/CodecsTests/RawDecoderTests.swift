import Codecs
import Testing

struct RawDecoderTests {
  @Test func `what one read delivered is one message`() throws {
    #expect(
      try StreamDriver.decode([1, 2, 3, 4, 5, 6], .raw, chunks: [1, 3, 2]).messages == [[1], [2, 3, 4], [5, 6]])
  }

  @Test func `no bytes are no message`() {
    var decoder = FrameDecoder()
    #expect(decoder.next(.raw, in: UnsafeRawBufferPointer(start: nil, count: 0)) == .incomplete)
  }
}
