import Codecs
import Testing

struct FrameDecoderTests {
  /// The steps of one decoder over growing prefixes of `bytes`, with `scanned` bytes overwritten before the last step.
  private func stepAfterOverwriting(
    _ bytes: [UInt8], _ codec: Codec, first: Int, overwritten: Int, with byte: UInt8
  ) -> FrameStep {
    var decoder = FrameDecoder()
    var bytes = bytes
    let before = bytes.withUnsafeBytes { decoder.next(codec, in: UnsafeRawBufferPointer(rebasing: $0[..<first])) }
    #expect(before == .incomplete)
    for index in 0..<overwritten { bytes[index] = byte }
    return bytes.withUnsafeBytes { decoder.next(codec, in: $0) }
  }

  @Test func `a line's bytes are scanned once`() {
    let step = stepAfterOverwriting(
      Array("abcdefgh\n".utf8), .line(maxLength: 100), first: 5, overwritten: 5, with: UInt8(ascii: "\n"))
    #expect(step == .message(payload: 0..<8, consumed: 9))
  }

  @Test func `delimited bytes are scanned once, except those where a delimiter may have begun`() {
    let codec = Codec.delimiter(Delimiter("--".utf8)!, maxLength: 100)
    let step = stepAfterOverwriting(
      Array("abcd-ef--".utf8), codec, first: 5, overwritten: 4, with: UInt8(ascii: "-"))
    #expect(step == .message(payload: 0..<7, consumed: 9))
  }

  @Test func `incomplete, failed and empty input consume nothing and can be asked again`() throws {
    let codecs: [Codec] = [
      .line(maxLength: 3), .delimiter(Delimiter("--".utf8)!, maxLength: 3), .fixed(length: 4),
      .lengthField(try LengthField(size: 1)), .netstring(maxLength: 3),
    ]
    for codec in codecs {
      var decoder = FrameDecoder()
      #expect(decoder.next(codec, in: UnsafeRawBufferPointer(start: nil, count: 0)) == .incomplete)
      #expect(decoder.next(codec, in: UnsafeRawBufferPointer(start: nil, count: 0)) == .incomplete)
    }
  }

  @Test func `reset starts over with another codec on the same bytes`() {
    var decoder = FrameDecoder()
    let bytes = Array("3:a\nb,".utf8)
    bytes.withUnsafeBytes { bytes in
      let begun = UnsafeRawBufferPointer(rebasing: bytes[..<3])
      #expect(decoder.next(.line(maxLength: 10), in: begun) == .incomplete)
      decoder.reset()
      #expect(decoder.next(.netstring(maxLength: 10), in: bytes) == .message(payload: 2..<5, consumed: 6))
      decoder.reset()
      #expect(decoder.next(.line(maxLength: 10), in: bytes) == .message(payload: 0..<3, consumed: 4))
    }
  }

  @Test func `reset lets the caller take bytes by other means`() {
    var decoder = FrameDecoder()
    let bytes = Array("abcdef\n".utf8)
    bytes.withUnsafeBytes { bytes in
      let begun = UnsafeRawBufferPointer(rebasing: bytes[..<6])
      #expect(decoder.next(.line(maxLength: 10), in: begun) == .incomplete)
      decoder.reset()
      let rest = UnsafeRawBufferPointer(rebasing: bytes[5...])
      #expect(decoder.next(.line(maxLength: 10), in: rest) == .message(payload: 0..<1, consumed: 2))
    }
  }
}
