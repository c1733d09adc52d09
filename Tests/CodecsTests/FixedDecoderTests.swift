import Codecs
import Testing

struct FixedDecoderTests {
  @Test func `every message has the length`() throws {
    #expect(try decode("abcdefgh", .fixed(length: 3)) == messages("abc", "def"))
    #expect(try decode("abc", .fixed(length: 1)) == messages("a", "b", "c"))
    #expect(try decode("abc", .fixed(length: 0x7fff_ffff)) == messages())
  }

  @Test(arguments: [1, 2, 3, 7, 64])
  func `messages are the same however the bytes are split`(length: Int) throws {
    try checkAllSplits((0..<50).map { UInt8($0) }, .fixed(length: length), seed: 1)
  }
}
