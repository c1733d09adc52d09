import Codecs
import Testing

struct DelimiterDecoderTests {
  private func codec(_ delimiter: String, _ maxLength: Int) -> Codec {
    .delimiter(Delimiter(delimiter.utf8)!, maxLength: maxLength)
  }

  @Test func `a message ends at the delimiter`() throws {
    #expect(try decode("a\0bc\0\0d", codec("\0", 5)) == messages("a", "bc", ""))
    #expect(try decode("a--b-c----", codec("--", 5)) == messages("a", "b-c", ""))
    #expect(try decode("a0123456789abcdefb", codec("0123456789abcdef", 5)) == messages("a"))
  }

  @Test func `the first of overlapping delimiters counts`() throws {
    #expect(try decode("xaaab", codec("aa", 5)) == messages("x"))
    #expect(try decode("xaaaab", codec("aa", 5)) == messages("x", ""))
    #expect(try decode("aabaabaab", codec("aabaab", 5)) == messages(""))
    #expect(try decode("aaabaab", codec("aabaab", 5)) == messages("a"))
  }

  @Test func `a message of exactly the maximum passes and one byte more does not`() throws {
    #expect(try decode("12345--", codec("--", 5)) == messages("12345"))
    #expect(try decode("123456--", codec("--", 5)) == messages(then: .tooLong))
    #expect(try decode("12345\0", codec("\0", 5)) == messages("12345"))
    #expect(try decode("123456\0", codec("\0", 5)) == messages(then: .tooLong))
  }

  @Test func `a message fails as soon as no delimiter can begin in time`() throws {
    #expect(try decode("12345-", codec("--", 5)) == messages())
    #expect(try decode("12345-x", codec("--", 5)) == messages(then: .tooLong))
    #expect(try decode("123456", codec("--", 5)) == messages(then: .tooLong))
    #expect(try decode("12345", codec("\0", 5)) == messages())
    #expect(try decode("123456", codec("\0", 5)) == messages(then: .tooLong))
    #expect(try decode("1234aab", codec("aabaab", 5)) == messages())
    #expect(try decode("1234aabb", codec("aabaab", 5)) == messages(then: .tooLong))
  }

  @Test(arguments: [
    ("\r\n", "ab\r\n\r\r\n\r\ncd\n\r"), ("aa", "aaaaabaaabaaa"), ("aab", "aaaabaabaaab"), ("abab", "abaababababab"),
    ("0123456789abcdef", "x0123456789abcdef0123456789abcde0123456789abcdef"), ("--", "12345-x"), ("--", "12345---"),
    (";", "a;;b;123456;"),
  ])
  func `messages are the same however the bytes are split`(delimiter: String, text: String) throws {
    try checkAllSplits(Array(text.utf8), codec(delimiter, 5), seed: 3)
    try checkAllSplits(Array(text.utf8), codec(delimiter, 500), seed: 3)
  }

  @Test func `a peer that never sends the delimiter is cut off within the maximum and one read`() throws {
    for chunk in [1, 2, 64, 1000] {
      var driver = StreamDriver(codec("aaab", 100))
      try driver.run(
        Array(repeating: UInt8(ascii: "a"), count: 5000), chunks: Array(repeating: chunk, count: 5000 / chunk))
      #expect(driver.decoded == messages(then: .tooLong))
      #expect(driver.heldMax <= 100 + 3 + chunk)
    }
  }
}
