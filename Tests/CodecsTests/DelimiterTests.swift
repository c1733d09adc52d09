import Codecs
import Testing

struct DelimiterTests {
  @Test(arguments: 1...16)
  func `a delimiter holds 1 to 16 bytes of any value`(count: Int) throws {
    let bytes = (0..<count).map { UInt8(255 - $0) }
    let delimiter = try Delimiter(validating: bytes)
    #expect(delimiter.count == count)
    #expect(delimiter.withUnsafeBytes { Array($0) } == bytes)
    #expect(bytes.withUnsafeBytes { Delimiter($0) } == delimiter)
  }

  @Test(arguments: [0, 17, 1000])
  func `a delimiter of another length is refused with what is allowed`(count: Int) {
    let bytes = [UInt8](repeating: 0, count: count)
    #expect(Delimiter(bytes) == nil)
    let error = #expect(throws: CodecSettingError.self) { try Delimiter(validating: bytes) }
    #expect("\(error!)" == "codec \"delimiter\": delimiter must have 1 to 16 bytes, not \(count)")
  }

  @Test func `delimiters are equal when their bytes are`() {
    #expect(Delimiter([1, 2]) == Delimiter([1, 2]))
    #expect(Delimiter([1, 2]) != Delimiter([1, 3]))
    #expect(Delimiter([1]) != Delimiter([1, 0]))
  }
}
