import Codecs
import Testing

struct FramingTests {
  private func frame(_ payload: [UInt8], _ codec: Codec) throws -> [UInt8] {
    let framing = try codec.framing(payloadCount: payload.count)
    var frame = [UInt8](repeating: 0xee, count: framing.overhead + payload.count + 1)
    let count = frame.withUnsafeMutableBytes { frame in
      payload.withUnsafeBytes { framing.copyFrame(of: $0, to: frame.baseAddress!) }
    }
    #expect(count == framing.prefixCount + payload.count + framing.suffixCount)
    #expect(frame.removeLast() == 0xee, "written beyond the frame")
    #expect(framing.withPrefix { Array($0) } == Array(frame.prefix(framing.prefixCount)))
    #expect(framing.withSuffix { Array($0) } == Array(frame.suffix(framing.suffixCount)))
    return frame
  }

  private func length(
    _ size: Int, _ endian: LengthField.Endian = .big, offset: Int = 0, adjustment: Int = 0, max: Int = 100_000
  ) throws -> Codec {
    .lengthField(
      try LengthField(size: size, endian: endian, offset: offset, adjustment: adjustment, maxLength: max))
  }

  private func refusal(_ count: Int, _ codec: Codec) -> FramingError? {
    do {
      _ = try codec.framing(payloadCount: count)
      return nil
    } catch {
      return error
    }
  }

  @Test func `each codec puts its own bytes around a payload`() throws {
    #expect(try frame([1, 2], .raw) == [1, 2])
    #expect(try frame([1, 2], .line(maxLength: 2)) == [1, 2, 10])
    #expect(try frame([1, 2], .delimiter(Delimiter([0, 9, 0])!, maxLength: 2)) == [1, 2, 0, 9, 0])
    #expect(try frame([1, 2], .fixed(length: 2)) == [1, 2])
    #expect(try frame([1, 2], length(1)) == [2, 1, 2])
    #expect(try frame([1, 2], length(3)) == [0, 0, 2, 1, 2])
    #expect(try frame([1, 2], length(3, .little)) == [2, 0, 0, 1, 2])
    #expect(try frame([1, 2], length(8, .little)) == [2, 0, 0, 0, 0, 0, 0, 0, 1, 2])
    #expect(try frame([1, 2], .netstring(maxLength: 2)) == Array("2:".utf8) + [1, 2] + Array(",".utf8))
    #expect(try frame([], .netstring(maxLength: 2)) == Array("0:,".utf8))
    #expect(try frame([], .raw) == [])
  }

  @Test(arguments: [0, 1, 9, 10, 99, 100, 12345, 1_000_000_000, 0x7fff_ffff])
  func `a netstring's length is written in decimal`(count: Int) throws {
    let framing = try Codec.netstring(maxLength: 0x7fff_ffff).framing(payloadCount: count)
    #expect(framing.withPrefix { String(decoding: $0, as: UTF8.self) } == "\(count):")
  }

  @Test func `the longest possible prefix and suffix fit`() throws {
    let framing = try Codec.netstring(maxLength: Int.max).framing(payloadCount: Int.max)
    #expect(framing.withPrefix { String(decoding: $0, as: UTF8.self) } == "\(Int.max):")
    #expect(try frame([5], .delimiter(Delimiter(1...16)!, maxLength: 1)) == [5] + (1...16))
  }

  @Test func `the adjustment is taken back from the length`() throws {
    #expect(try frame([1, 2], length(2, adjustment: -2)) == [0, 4, 1, 2])
    #expect(try frame([1, 2], length(2, adjustment: 2)) == [0, 0, 1, 2])
  }

  @Test func `a payload that the codec could not cut off again is refused`() throws {
    #expect(refusal(3, .fixed(length: 4)) == .wrongLength(expected: 4, given: 3))
    #expect(refusal(Int.max, .raw) == nil)
    #expect(refusal(3, try length(2, offset: 1)) == .lengthFieldNotFirst(offset: 1))
    #expect(refusal(1, try length(2, adjustment: 2)) == .lengthDoesNotFit(value: -1, size: 2))
  }

  @Test func `max_length bounds what is received, not what is sent`() throws {
    #expect(refusal(4, .line(maxLength: 3)) == nil)
    #expect(refusal(4, .delimiter(Delimiter([0])!, maxLength: 3)) == nil)
    #expect(refusal(4, .netstring(maxLength: 3)) == nil)
    #expect(refusal(9, try length(2, max: 10)) == nil)
  }

  @Test func `the short way of framing writes what the long way does`() throws {
    let codecs: [Codec] = [
      .raw, .line(maxLength: 9), .delimiter(Delimiter([13, 10])!, maxLength: 9), .fixed(length: 5), try length(2),
      .netstring(maxLength: 9),
    ]
    let payload: [UInt8] = [1, 2, 3, 4, 5]
    for codec in codecs {
      var written = [UInt8](repeating: 0, count: try codec.framedCount(payload.count))
      written.withUnsafeMutableBytes { room in
        payload.withUnsafeBytes { codec.writeFrame(of: $0, to: room.baseAddress!) }
      }
      #expect(written == (try frame(payload, codec)))
    }
  }

  @Test func `a length that its field cannot hold is refused, the greatest is not`() throws {
    #expect(refusal(255, try length(1)) == nil)
    #expect(refusal(256, try length(1)) == .lengthDoesNotFit(value: 256, size: 1))
    #expect(refusal(254, try length(1, adjustment: -1)) == nil)
    #expect(refusal(255, try length(1, adjustment: -1)) == .lengthDoesNotFit(value: 256, size: 1))
    #expect(refusal(65535, try length(2)) == nil)
    #expect(refusal(65536, try length(2)) == .lengthDoesNotFit(value: 65536, size: 2))
    #expect(refusal(0xff_ffff, try length(3, max: 0x7fff_ffff)) == nil)
    #expect(refusal(0x100_0000, try length(3, max: 0x7fff_ffff)) == .lengthDoesNotFit(value: 0x100_0000, size: 3))
  }

  @Test func `a refusal says what is wrong`() {
    #expect("\(FramingError.wrongLength(expected: 4, given: 3))" == "a message of this fixed codec has 4 bytes, not 3")
    #expect("\(FramingError.lengthFieldNotFirst(offset: 2))".contains("use write"))
    #expect(
      "\(FramingError.lengthDoesNotFit(value: 256, size: 1))" == "the length 256 does not fit a length field of 1 bytes"
    )
  }

  @Test func `what was framed is cut off again`() throws {
    let codecs: [Codec] = [
      .line(maxLength: 300), .delimiter(Delimiter([1, 2, 1])!, maxLength: 300), .netstring(maxLength: 300),
      try length(1, adjustment: -1), try length(2, .little), try length(3), try length(4, .little, adjustment: -4),
      try length(8),
    ]
    var random = SeededRandom(seed: 7)
    for codec in codecs {
      // Neither LF, CR nor the delimiter's bytes, which lines and delimited text cannot carry.
      let payloads = (0...200).map { random.bytes($0, from: Array(14...255)) }
      let stream = try payloads.flatMap { try frame($0, codec) }
      #expect(try decode(stream, codec) == Decoded(messages: payloads), "\(codec)")
    }
  }
}
