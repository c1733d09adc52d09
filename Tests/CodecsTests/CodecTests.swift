import Codecs
import Testing

struct CodecTests {
  private let zero = Delimiter([0])!

  private func message(_ body: () throws -> Codec) -> String {
    do {
      return "accepted: \(try body())"
    } catch {
      return "\(error)"
    }
  }

  @Test func `each codec has the name that scripts give it`() throws {
    let codecs: [Codec] = [
      .raw, .line(maxLength: 1), .delimiter(zero, maxLength: 1), .fixed(length: 1),
      .lengthField(try LengthField(size: 4)), .netstring(maxLength: 1),
    ]
    #expect(codecs.map(\.name) == ["raw", "line", "delimiter", "fixed", "length", "netstring"])
  }

  @Test func `each codec tells its longest message`() throws {
    #expect(Codec.raw.maxLength == Int.max)
    #expect(Codec.line(maxLength: 7).maxLength == 7)
    #expect(Codec.delimiter(zero, maxLength: 8).maxLength == 8)
    #expect(Codec.fixed(length: 9).maxLength == 9)
    #expect(Codec.lengthField(try LengthField(size: 4, maxLength: 10)).maxLength == 10)
    #expect(Codec.netstring(maxLength: 11).maxLength == 11)
  }

  @Test func `the defaults are the contract's`() throws {
    #expect(Codec.lineMaxLengthDefault == 65536)
    #expect(Codec.frameMaxLengthDefault == 1_048_576)
    #expect(try LengthField(size: 2).maxLength == Codec.frameMaxLengthDefault)
  }

  @Test func `codecs, decoders and framings are copied without counting references`() {
    #expect(_isPOD(Codec.self))
    #expect(_isPOD(FrameDecoder.self))
    #expect(_isPOD(FrameStep.self))
    #expect(_isPOD(Framing.self))
    #expect(MemoryLayout<FrameDecoder>.size <= 16)
    #expect(MemoryLayout<Codec>.size <= 48)
  }

  @Test func `lengths from 1 to 2 GiB are valid`() throws {
    for length in [1, 2, 65536, 0x7fff_ffff] {
      _ = try Codec.line(maxLength: length).validated()
      _ = try Codec.delimiter(zero, maxLength: length).validated()
      _ = try Codec.fixed(length: length).validated()
      _ = try Codec.netstring(maxLength: length).validated()
    }
    _ = try Codec.raw.validated()
    _ = try Codec.lengthField(LengthField(size: 1)).validated()
  }

  @Test(arguments: [Int.min, -1, 0, 0x8000_0000, Int.max])
  func `a length out of range is refused with the option and what is allowed`(length: Int) {
    let range = "must be from 1 to 2147483647, not \(length)"
    #expect(message { try Codec.line(maxLength: length).validated() } == "codec \"line\": max_length \(range)")
    #expect(
      message { try Codec.delimiter(zero, maxLength: length).validated() } == "codec \"delimiter\": max_length \(range)"
    )
    #expect(message { try Codec.fixed(length: length).validated() } == "codec \"fixed\": length \(range)")
    #expect(
      message { try Codec.netstring(maxLength: length).validated() } == "codec \"netstring\": max_length \(range)")
  }
}
