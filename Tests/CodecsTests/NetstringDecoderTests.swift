import Codecs
import Testing

struct NetstringDecoderTests {
  private let codec = Codec.netstring(maxLength: 12)

  @Test func `a netstring is a length, a colon, the payload and a comma`() throws {
    #expect(try decode("12:hello world!,0:,3:a,b,1", codec) == messages("hello world!", "", "a,b"))
  }

  @Test func `a length over the maximum fails with the digit that makes it so`() throws {
    #expect(try decode("12", codec) == messages())
    #expect(try decode("13", codec) == messages(then: .tooLong))
    #expect(try decode("120", codec) == messages(then: .tooLong))
    #expect(try decode("99999999999999999999999999", codec) == messages(then: .tooLong))
    #expect(try decode("9223372036854775807", .netstring(maxLength: 0x7fff_ffff)) == messages(then: .tooLong))
    #expect(try decode("18446744073709551616", .netstring(maxLength: Int.max)) == messages(then: .tooLong))
    #expect(try decode("2147483647:", .netstring(maxLength: 0x7fff_ffff)) == messages())
    #expect(try decode("2147483648", .netstring(maxLength: 0x7fff_ffff)) == messages(then: .tooLong))
  }

  @Test(arguments: ["00", "01", ":", "-", "+1", " 1", "a", ",", "1a", "1 ", "1-", "0x", "1\n", "/", ";"])
  func `a length that is not plain digits and a colon is malformed at once`(text: String) throws {
    #expect(try decode("2:ok," + text, codec) == messages("ok", then: .malformed))
  }

  @Test func `a netstring without its comma is malformed`() throws {
    #expect(try decode("2:ok", codec) == messages())
    #expect(try decode("2:ok;", codec) == messages(then: .malformed))
    #expect(try decode("0:0", codec) == messages(then: .malformed))
    #expect(try decode("2:oka,", codec) == messages(then: .malformed))
  }

  @Test(arguments: ["12:hello world!,0:,3:a,b,1:", "2:ok,01:", "2:ok,13:", "2:ok;", "10:0123456789,9:123456789,x"])
  func `messages are the same however the bytes are split`(text: String) throws {
    try checkAllSplits(Array(text.utf8), codec, seed: 6)
    try checkAllSplits(Array(text.utf8), .netstring(maxLength: 9), seed: 6)
  }

  @Test func `memory stays within the maximum, the header and one read`() throws {
    var driver = StreamDriver(codec)
    let stream = Array("12:hello world!;".utf8)
    try driver.run(stream, chunks: Array(repeating: 1, count: stream.count))
    #expect(driver.decoded == messages(then: .malformed))
    #expect(driver.heldMax == 12 + 3 + 1)
  }
}
