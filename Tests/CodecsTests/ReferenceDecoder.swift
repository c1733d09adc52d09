// What each codec means, written as plainly as possible and differently from the decoders: arrays instead of pointers,
// the whole stream at once instead of pieces, 128-bit sums instead of overflow checks, text instead of arithmetic.

import Codecs

/// How the decoding of a stream ended.
enum Ending: Equatable {
  /// The stream ended between messages or within one.
  case open
  case tooLong
  case malformed
}

/// What a stream decodes to.
struct Decoded: Equatable {
  var messages: [[UInt8]] = []
  var ending = Ending.open
}

/// One step of the reference: the same three outcomes as FrameStep, with the bytes themselves.
private enum ReferenceStep {
  case message([UInt8], rest: [UInt8])
  case incomplete
  case failed(Ending)
}

/// Decodes a whole stream, slowly.
func referenceDecode(_ stream: [UInt8], _ codec: Codec) -> Decoded {
  var decoded = Decoded()
  var rest = stream
  while true {
    switch referenceStep(rest, codec) {
    case .message(let message, let remaining):
      decoded.messages.append(message)
      rest = remaining
    case .incomplete:
      return decoded
    case .failed(let ending):
      decoded.ending = ending
      return decoded
    }
  }
}

private func referenceStep(_ bytes: [UInt8], _ codec: Codec) -> ReferenceStep {
  switch codec {
  case .raw:
    return bytes.isEmpty ? .incomplete : .message(bytes, rest: [])
  case .line(let maxLength):
    return referenceLine(bytes, maxLength)
  case .delimiter(let delimiter, let maxLength):
    return referenceDelimiter(bytes, delimiter.withUnsafeBytes { Array($0) }, maxLength)
  case .fixed(let length):
    return bytes.count < length
      ? .incomplete : .message(Array(bytes.prefix(length)), rest: Array(bytes.dropFirst(length)))
  case .lengthField(let field):
    return referenceLengthField(bytes, field)
  case .netstring(let maxLength):
    return referenceNetstring(bytes, maxLength)
  }
}

private func referenceLine(_ bytes: [UInt8], _ maxLength: Int) -> ReferenceStep {
  func payload(_ line: [UInt8]) -> [UInt8] {
    line.last == 13 ? line.dropLast() : line
  }
  if let end = bytes.firstIndex(of: 10) {
    let message = payload(Array(bytes[..<end]))
    return message.count > maxLength ? .failed(.tooLong) : .message(message, rest: Array(bytes[(end + 1)...]))
  }
  // It can still pass if it would pass when the line's end came now.
  let couldPass = payload(bytes).count <= maxLength || bytes.count <= maxLength
  return couldPass ? .incomplete : .failed(.tooLong)
}

private func referenceDelimiter(_ bytes: [UInt8], _ delimiter: [UInt8], _ maxLength: Int) -> ReferenceStep {
  for place in 0...bytes.count where bytes[place...].starts(with: delimiter) {
    let rest = Array(bytes[(place + delimiter.count)...])
    return place > maxLength ? .failed(.tooLong) : .message(Array(bytes[..<place]), rest: rest)
  }
  // It can still pass if a delimiter could have begun early enough, or can yet begin at the very end.
  let couldPass = (0...bytes.count).contains { place in
    place <= maxLength && delimiter.starts(with: bytes[place...])
  }
  return couldPass ? .incomplete : .failed(.tooLong)
}

private func referenceLengthField(_ bytes: [UInt8], _ field: LengthField) -> ReferenceStep {
  guard bytes.count >= field.offset + field.size else { return .incomplete }
  var digits = Array(bytes[field.offset..<(field.offset + field.size)])
  if field.endian == .little { digits.reverse() }
  let value = digits.reduce(Int128(0)) { $0 * 256 + Int128($1) }
  let frame = Int128(field.offset) + Int128(field.size) + value + Int128(field.adjustment)
  if value > Int128(Int64.max) || frame > Int128(Int64.max) { return .failed(.malformed) }
  if frame < Int128(field.offset + field.size) { return .failed(.malformed) }
  if frame > Int128(field.maxLength) { return .failed(.tooLong) }
  if frame < Int128(field.strip) { return .failed(.malformed) }
  guard bytes.count >= Int(frame) else { return .incomplete }
  return .message(Array(bytes[field.strip..<Int(frame)]), rest: Array(bytes[Int(frame)...]))
}

private func referenceNetstring(_ bytes: [UInt8], _ maxLength: Int) -> ReferenceStep {
  let digits = String(decoding: bytes.prefix { (48...57).contains($0) }, as: UTF8.self)
  let limit = String(maxLength)
  if digits.count > 1 && digits.hasPrefix("0") { return .failed(.malformed) }
  if digits.count > limit.count || (digits.count == limit.count && digits > limit) { return .failed(.tooLong) }
  guard bytes.count > digits.count else { return .incomplete }
  guard let length = Int(digits), bytes[digits.count] == UInt8(ascii: ":") else { return .failed(.malformed) }
  let body = bytes[(digits.count + 1)...]
  guard body.count > length else { return .incomplete }
  guard body.dropFirst(length).first == UInt8(ascii: ",") else { return .failed(.malformed) }
  return .message(Array(body.prefix(length)), rest: Array(body.dropFirst(length + 1)))
}
