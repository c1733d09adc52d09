import Codecs
import Testing

struct LineDecoderTests {
  private let codec = Codec.line(maxLength: 5)

  @Test func `a line ends at LF and loses one CR`() throws {
    #expect(try decode("ab\ncd\r\n\n\r\nef", codec) == messages("ab", "cd", "", ""))
  }

  @Test func `a second CR and a CR within the line stay`() throws {
    #expect(try decode("a\r\r\n\rb\n\r\r\r\n", codec) == messages("a\r", "\rb", "\r\r"))
  }

  @Test func `zero bytes and bytes above 127 are ordinary`() throws {
    #expect(try decode([0, 255, 10, 128, 0, 13, 10], codec).messages == [[0, 255], [128, 0]])
  }

  @Test func `a line of exactly the maximum passes with and without CR`() throws {
    #expect(try decode("12345\n12345\r\n", codec) == messages("12345", "12345"))
  }

  @Test func `one byte more is too long`() throws {
    #expect(try decode("1\n123456\n", codec) == messages("1", then: .tooLong))
    #expect(try decode("1\n123456\r\n", codec) == messages("1", then: .tooLong))
    #expect(try decode("12345\r\r\n", codec) == messages(then: .tooLong))
  }

  @Test func `a line fails with the first byte too many, a CR in that place with the byte after it`() throws {
    #expect(try decode("12345", codec) == messages())
    #expect(try decode("123456", codec) == messages(then: .tooLong))
    #expect(try decode("12345\r", codec) == messages())
    #expect(try decode("12345\rx", codec) == messages(then: .tooLong))
    #expect(try decode("12345\r\r", codec) == messages(then: .tooLong))
  }

  @Test func `a limit of one byte works`() throws {
    #expect(try decode("a\n\r\n\nb\r\n", .line(maxLength: 1)) == messages("a", "", "", "b"))
    #expect(try decode("\rx", .line(maxLength: 1)) == messages(then: .tooLong))
  }

  @Test func `a limit that was never validated does not trap`() throws {
    #expect(try decode("abc\nd", .line(maxLength: Int.max - 1)) == messages("abc"))
  }

  @Test(arguments: [
    "ab\r\ncd\n\n\r\n\r\r\n12345\r\nxyz", "12345\r\n123456", "12345\r\r\n", "\r\n\r\n\r", "12345\rx\n", "a\n123456\n",
  ])
  func `messages are the same however the bytes are split`(text: String) throws {
    try checkAllSplits(Array(text.utf8), codec, seed: 2)
  }

  @Test func `a peer that never sends LF is cut off within the maximum and one read`() throws {
    for chunk in [1, 2, 64, 1000] {
      var driver = StreamDriver(.line(maxLength: 100))
      try driver.run(Array(repeating: 65, count: 5000), chunks: Array(repeating: chunk, count: 5000 / chunk))
      #expect(driver.decoded == messages(then: .tooLong))
      #expect(driver.heldMax <= 100 + 1 + chunk)
    }
  }
}
