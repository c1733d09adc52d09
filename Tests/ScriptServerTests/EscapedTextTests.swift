import ScriptServer
import Testing

struct EscapedTextTests {
  private func escape(_ bytes: [UInt8], limit: Int = 8192) -> String {
    bytes.withUnsafeBytes { escaped($0, limit: limit) }
  }

  private func escape(_ text: String, limit: Int = 8192) -> String { escape(Array(text.utf8), limit: limit) }

  @Test("what ends a line, steers a terminal or turns text around is spelled out")
  func dangerous() {
    #expect(escape("a\nb\r\tc") == #"a\nb\r\tc"#)
    #expect(escape("\u{1b}[31m\0\u{7f}") == #"\x1b[31m\x00\x7f"#)
    #expect(escape("\u{85}\u{9b}\u{2028}\u{2029}\u{202e}\u{2066}") == #"\u{85}\u{9b}\u{2028}\u{2029}\u{202e}\u{2066}"#)
    #expect(escape(#"C:\new"#) == #"C:\\new"#)
  }

  @Test("ordinary text of any language stays as it is")
  func ordinary() {
    for text in ["", "plain \"quoted\" text", "grüße, 世界, 🌍", "\u{a0}\u{d7ff}\u{e000}\u{10ffff}"] {
      #expect(escape(text) == text)
    }
  }

  @Test("bytes that are not UTF-8 are shown one by one")
  func invalid() {
    #expect(escape([0x61, 0xff, 0xc3]) == #"a\xff\xc3"#)
    // Overlong forms, a surrogate, beyond U+10FFFF, a lone continuation, a cut sequence.
    #expect(escape([0xc0, 0x80]) == #"\xc0\x80"#)
    #expect(escape([0xe0, 0x80, 0x80]) == #"\xe0\x80\x80"#)
    #expect(escape([0xed, 0xa0, 0x80]) == #"\xed\xa0\x80"#)
    #expect(escape([0xf4, 0x90, 0x80, 0x80]) == #"\xf4\x90\x80\x80"#)
    #expect(escape([0xf0, 0x8f, 0xbf, 0xbf]) == #"\xf0\x8f\xbf\xbf"#)
    #expect(escape([0x80, 0x41, 0xe2, 0x82]) == #"\x80A\xe2\x82"#)
  }

  @Test("every sequence of up to three bytes agrees with Swift's own decoder on what is valid")
  func agrees() {
    let edges: [UInt8] = [
      0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xec, 0xed, 0xee, 0xef,
    ]
    for first in UInt8.min...UInt8.max {
      for second in edges {
        for third in edges {
          let bytes = [first, second, third]
          let isValid = String(validating: bytes, as: UTF8.self) != nil
          #expect(!escape(bytes).contains(#"\x"#) == isValid || bytes.contains { $0 < 0x20 || $0 == 0x7f })
        }
      }
    }
  }

  @Test("long text is cut between two characters and says how much is missing")
  func limit() {
    #expect(escape("abcdef", limit: 6) == "abcdef")
    #expect(escape("abcdef", limit: 4) == "abcd… (2 bytes more)")
    #expect(escape("a世界", limit: 5) == "a世… (3 bytes more)")
    #expect(escape("🌍", limit: 3) == "… (4 bytes more)")
    #expect(escape([0x80, 0x80, 0x80, 0x80, 0x80, 0x80], limit: 5) == #"\x80\x80\x80\x80\x80… (1 bytes more)"#)
    #expect(escape("abc", limit: 0) == "… (3 bytes more)")
  }
}
