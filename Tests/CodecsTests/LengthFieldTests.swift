import Codecs
import Testing

struct LengthFieldTests {
  private func refusal(
    size: Int = 4, offset: Int = 0, adjustment: Int = 0, strip: Int? = nil, maxLength: Int = 100
  ) -> String {
    do {
      let field = try LengthField(
        size: size, offset: offset, adjustment: adjustment, strip: strip, maxLength: maxLength)
      return "accepted: \(field)"
    } catch {
      return "\(error)"
    }
  }

  @Test func `what is not given has the contract's default`() throws {
    let field = try LengthField(size: 2, offset: 3)
    #expect(field.endian == .big)
    #expect(field.adjustment == 0)
    #expect(field.strip == 5)
    #expect(field.headerCount == 5)
    #expect(field.maxLength == 1_048_576)
  }

  @Test func `byte orders have the words of scripts`() {
    #expect(LengthField.Endian(rawValue: "big") == .big)
    #expect(LengthField.Endian(rawValue: "little") == .little)
    #expect(LengthField.Endian(rawValue: "middle") == nil)
  }

  @Test(arguments: [Int.min, -1, 0, 5, 6, 7, 9, Int.max])
  func `a size other than 1, 2, 3, 4 and 8 is refused`(size: Int) {
    #expect(refusal(size: size) == "codec \"length\": size must be 1, 2, 3, 4 or 8, not \(size)")
  }

  @Test(arguments: [Int.min, 0, 3, 0x8000_0000, Int.max])
  func `a maximum below the field or above 2 GiB is refused`(maxLength: Int) {
    #expect(
      refusal(maxLength: maxLength) == "codec \"length\": max_length must be from 4 to 2147483647, not \(maxLength)")
  }

  @Test(arguments: [Int.min, -1, 97, Int.max])
  func `an offset that puts the field outside the longest frame is refused`(offset: Int) {
    #expect(
      refusal(offset: offset)
        == "codec \"length\": offset must be from 0 to 96 (the length field must lie within max_length), not \(offset)")
  }

  @Test(arguments: [Int.min, -256, 100, Int.max])
  func `an adjustment that lets no frame pass is refused`(adjustment: Int) {
    #expect(
      refusal(size: 1, adjustment: adjustment)
        == "codec \"length\": adjustment must be from -255 to 99 "
        + "(otherwise no frame fits max_length and the field), not \(adjustment)")
  }

  @Test(arguments: [Int.min, -1, 101, Int.max])
  func `a strip beyond the longest frame is refused`(strip: Int) {
    #expect(
      refusal(strip: strip)
        == "codec \"length\": strip must be from 0 to 100 (it cannot exceed max_length), not \(strip)")
  }

  @Test func `the outermost settings are accepted`() throws {
    _ = try LengthField(size: 8, offset: 0, adjustment: -Int.max, strip: 0, maxLength: 8)
    _ = try LengthField(size: 8, offset: 0x7fff_fff7, adjustment: 0, strip: 0x7fff_ffff, maxLength: 0x7fff_ffff)
    _ = try LengthField(size: 1, offset: 0, adjustment: 0x7fff_fffe, strip: 0, maxLength: 0x7fff_ffff)
  }
}
