import Codecs
import Testing

struct LengthFieldDecoderTests {
  private func codec(
    _ size: Int, _ endian: LengthField.Endian = .big, offset: Int = 0, adjustment: Int = 0, strip: Int? = nil,
    max maxLength: Int = 100
  ) throws -> Codec {
    .lengthField(
      try LengthField(
        size: size, endian: endian, offset: offset, adjustment: adjustment, strip: strip, maxLength: maxLength))
  }

  /// The field alone, as a peer would send it.
  private func field(_ value: UInt64, _ size: Int, _ endian: LengthField.Endian) -> [UInt8] {
    let bytes = (0..<size).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
    return endian == .little ? bytes : bytes.reversed()
  }

  @Test(arguments: [1, 2, 3, 4, 8], [LengthField.Endian.big, .little])
  func `each size in each byte order leads to the frame's end`(size: Int, endian: LengthField.Endian) throws {
    let codec = try codec(size, endian, max: 70000)
    let lengths = [0, 1, 255, 256, 65535].filter { size > 1 || $0 < 256 }
    let bodies = lengths.map { [UInt8](repeating: 7, count: $0) }
    let stream = bodies.flatMap { field(UInt64($0.count), size, endian) + $0 }
    #expect(try decode(stream, codec) == Decoded(messages: bodies))
    try checkAllSplits(Array(stream.prefix(300)), codec, seed: 4, randomSplits: 300)
  }

  // The worked examples of LengthFieldBasedFrameDecoder's documentation, with "HELLO, WORLD" shortened.
  @Test func `the field can stay, count itself, or lie behind and before other headers`() throws {
    let hello = Array("HELLO".utf8)
    #expect(try decode([0, 5] + hello, codec(2)).messages == [hello])
    #expect(try decode([0, 5] + hello, codec(2, strip: 0)).messages == [[0, 5] + hello])
    #expect(try decode([0, 7] + hello, codec(2, adjustment: -2, strip: 0)).messages == [[0, 7] + hello])
    #expect(
      try decode([0xca, 0xfe, 0, 0, 5] + hello, codec(3, offset: 2, strip: 0)).messages
        == [[0xca, 0xfe, 0, 0, 5] + hello])
    #expect(
      try decode([0, 0, 5, 0xca, 0xfe] + hello, codec(3, adjustment: 2, strip: 0)).messages
        == [[0, 0, 5, 0xca, 0xfe] + hello])
    #expect(
      try decode([0xca, 0, 5, 0xfe] + hello, codec(2, offset: 1, adjustment: 1, strip: 3)).messages
        == [[0xfe] + hello])
    #expect(
      try decode([0xca, 0, 9, 0xfe] + hello, codec(2, offset: 1, adjustment: -3, strip: 3)).messages
        == [[0xfe] + hello])
  }

  @Test func `the maximum counts the whole frame`() throws {
    let codec = try codec(2, max: 7)
    #expect(try decode([0, 5, 1, 2, 3, 4, 5], codec).messages == [[1, 2, 3, 4, 5]])
    #expect(try decode([0, 6], codec).ending == .tooLong)
  }

  @Test func `a frame shorter than its header is malformed`() throws {
    #expect(try decode([1], codec(1, adjustment: -1)) == Decoded(messages: [[]]))
    #expect(try decode([0], codec(1, adjustment: -1)).ending == .malformed)
    #expect(try decode([0, 0], codec(2, adjustment: -100)).ending == .malformed)
  }

  @Test func `a frame shorter than the bytes to strip is malformed`() throws {
    #expect(try decode([2, 8, 9], codec(1, strip: 3)) == Decoded(messages: [[]]))
    #expect(try decode([1, 8], codec(1, strip: 3)).ending == .malformed)
  }

  @Test(arguments: [LengthField.Endian.big, .little])
  func `a huge announced length fails with the header alone`(endian: LengthField.Endian) throws {
    for value: UInt64 in [1 << 31, (1 << 31) - 1, (1 << 32) - 1] {
      #expect(try decode(field(value, 4, endian), codec(4, endian)).ending == .tooLong)
      #expect(try decode(field(value, 4, endian), codec(4, endian, adjustment: -1)).ending == .tooLong)
    }
    for value: UInt64 in [1 << 31, 1 << 32, 1 << 62, (1 << 63) - 9] {
      #expect(try decode(field(value, 8, endian), codec(8, endian)).ending == .tooLong)
    }
  }

  @Test(arguments: [LengthField.Endian.big, .little])
  func `a length that is negative or whose sum overflows is malformed`(endian: LengthField.Endian) throws {
    for value: UInt64 in [1 << 63, (1 << 63) + 1, UInt64.max - 1, UInt64.max] {
      #expect(try decode(field(value, 8, endian), codec(8, endian)).ending == .malformed)
      #expect(try decode(field(value, 8, endian), codec(8, endian, adjustment: -Int.max)).ending == .malformed)
    }
    for value: UInt64 in [(1 << 63) - 1, (1 << 63) - 8] {
      #expect(try decode(field(value, 8, endian), codec(8, endian)).ending == .malformed)
    }
    let extreme = try codec(8, endian, adjustment: -Int.max)
    #expect(try decode(field(UInt64(Int.max), 8, endian), extreme) == Decoded(messages: [[]]))
    #expect(try decode(field(UInt64(Int.max - 1), 8, endian), extreme).ending == .malformed)
    #expect(try decode(field(0, 8, endian), extreme).ending == .malformed)
  }

  @Test func `messages are the same however the bytes are split`() throws {
    let stream: [UInt8] = [9, 0, 3, 1, 2, 3, 9, 0, 0, 9, 0, 1, 7, 9, 1, 0]
    try checkAllSplits(stream, codec(2, offset: 1, max: 10), seed: 5)
    try checkAllSplits(stream, codec(2, offset: 1, adjustment: -1, max: 10), seed: 5)
    try checkAllSplits(stream, codec(1, offset: 2, adjustment: 2, strip: 5, max: 10), seed: 5)
  }

  @Test func `memory stays within the maximum and one read`() throws {
    var driver = StreamDriver(try codec(1, max: 100))
    let frame = [99] + [UInt8](repeating: 0, count: 99)
    let stream = Array([frame, frame, frame, frame, [100]].joined())
    try driver.run(stream, chunks: Array(repeating: 1, count: stream.count))
    #expect(driver.decoded.messages.count == 4)
    #expect(driver.decoded.ending == .tooLong)
    #expect(driver.heldMax == 100)
  }
}
