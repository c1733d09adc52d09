// A codec as it is written on the command line: `line`, `length:2:little`, `delimiter:\0`. Pure text; must never know what a codec
// does with bytes.

import Codecs

extension Codec {
  /// The forms that `init(commandText:)` takes, for help texts.
  package static let commandForms = "raw, line, netstring, fixed, length[:BYTES[:big|little]], delimiter:TEXT"

  /// The codec of a text like `line` or `length:2`, for messages of `payloadBytes` bytes: its limits are the server's default, or
  /// larger where the messages are.
  package init(commandText text: String, payloadBytes: Int) throws(LoadError) {
    let parts = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
    let rest = parts.count > 1 ? parts[1] : nil
    let frameMax = max(Codec.frameMaxLengthDefault, payloadBytes + LengthField.bytesMax)
    do throws(CodecSettingError) {
      switch (parts[0], rest) {
      case ("raw", nil): self = .raw
      case ("line", nil): self = .line(maxLength: max(Codec.lineMaxLengthDefault, payloadBytes))
      case ("netstring", nil): self = .netstring(maxLength: frameMax)
      case ("fixed", nil): self = try Codec.fixed(length: payloadBytes).validated()
      case ("length", let rest): self = .lengthField(try Self.lengthField(rest, of: text, maxLength: frameMax))
      case ("delimiter", let rest?):
        let delimiter = try Delimiter(validating: Self.unescaped(rest))
        self = .delimiter(delimiter, maxLength: max(Codec.lineMaxLengthDefault, payloadBytes))
      default: throw Self.unknown(text)
      }
    } catch {
      throw LoadError("--codec \(text): \(error)")
    }
  }

  private static func lengthField(
    _ rest: String?, of text: String, maxLength: Int
  ) throws(CodecSettingError) -> LengthField {
    guard let rest else { return try LengthField(size: 4, maxLength: maxLength) }
    let words = rest.split(separator: ":", omittingEmptySubsequences: false)
    guard words.count <= 2, let size = Int(words[0]) else { throw unknown(text) }
    guard words.count == 2 else { return try LengthField(size: size, maxLength: maxLength) }
    guard let endian = LengthField.Endian(rawValue: String(words[1])) else { throw unknown(text) }
    return try LengthField(size: size, endian: endian, maxLength: maxLength)
  }

  private static func unknown(_ text: String) -> CodecSettingError {
    CodecSettingError(codec: text, option: "it", problem: "is none of \(commandForms)")
  }

  /// The bytes of a text in which `\n`, `\r`, `\t`, `\0` and `\\` stand for what they do in Lua.
  private static func unescaped(_ text: String) -> [UInt8] {
    let meanings: [UInt8: UInt8] = [
      UInt8(ascii: "n"): 10, UInt8(ascii: "r"): 13, UInt8(ascii: "t"): 9, UInt8(ascii: "0"): 0, UInt8(ascii: "\\"): 92,
    ]
    var bytes: [UInt8] = []
    var isEscaped = false
    for byte in text.utf8 {
      if isEscaped, let meaning = meanings[byte] {
        bytes[bytes.count - 1] = meaning
        isEscaped = false
      } else {
        isEscaped = byte == UInt8(ascii: "\\")
        bytes.append(byte)
      }
    }
    return bytes
  }
}

extension LengthField {
  /// The widest length field there is.
  fileprivate static let bytesMax = 8
}
