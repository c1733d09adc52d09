// The admin channel's bytes: requests and replies as netstrings, both directions. Pure functions over byte
// arrays: this file must never know a descriptor, a command's meaning or the server.

/// What a decoder makes of the bytes received so far.
package enum AdminDecoded<Value: Sendable & Equatable>: Sendable, Equatable {
  /// The bytes are a proper beginning; more must arrive.
  case incomplete
  /// The bytes begin with this message. What follows it means nothing, whether it came with it or later.
  case complete(Value)
  /// The bytes can never become a message; the text says why.
  case invalid(String)
}

/// The answer to one admin request.
package struct AdminReply: Sendable, Equatable {
  /// The exit status for the command that asked: 0 when it was done, 1 when it failed.
  package var status: Int32
  /// What the command prints: on standard output for status 0, else on standard error.
  package var text: String

  package init(status: Int32, text: String) {
    self.status = status
    self.text = text
  }
}

/// What goes wrong on the admin channel, as a sentence for the operator.
package struct AdminFailure: Error, Sendable, Equatable, CustomStringConvertible {
  /// Says what failed, where, and what to do about it.
  package let message: String

  package init(_ message: String) {
    self.message = message
  }

  package var description: String { message }
}

/// A request is one netstring that holds one netstring per word; a reply is one netstring that holds two: the exit
/// status (`0` or `1`) and the text. One connection carries one request and one reply; either side drops what follows, so
/// that nothing depends on how the bytes are cut on their way.
/// See http://cr.yp.to/proto/netstrings.txt.
package enum AdminProtocol {
  /// Longest payload of a request in bytes: a broadcast text of nearly 1 MiB, the codecs' own default limit.
  package static let requestPayloadBytesMax = 1 << 20
  /// Longest payload of a reply in bytes: the `connections` table of 500,000 clients at about 130 bytes each.
  package static let replyPayloadBytesMax = 64 << 20
  /// Most words in a request: the longest command has three; the rest is room for later ones.
  package static let requestWordsMax = 16
  /// Most digits before the colon: 67108864, the reply's limit, has eight.
  static let lengthDigitsMax = 8
  /// What a netstring adds to its payload at most: the digits, a colon and a comma.
  package static let framingBytesMax = lengthDigitsMax + 2

  /// The bytes of a request.
  ///
  /// Throws when the words are too many or too long for a request.
  package static func encodeRequest(_ words: [String]) throws(AdminFailure) -> [UInt8] {
    guard words.count <= requestWordsMax else {
      throw AdminFailure("a request has at most \(requestWordsMax) words, this one has \(words.count)")
    }
    var payload: [UInt8] = []
    for word in words {
      appendNetstring(Array(word.utf8), to: &payload)
    }
    guard payload.count <= requestPayloadBytesMax else {
      throw AdminFailure("the request is \(payload.count) bytes long; \(requestPayloadBytesMax) is the most")
    }
    return netstring(payload)
  }

  /// The words of a request, from all bytes received on the connection so far.
  package static func decodeRequest(_ bytes: [UInt8]) -> AdminDecoded<[String]> {
    switch outerPayload(of: bytes, payloadBytesMax: requestPayloadBytesMax) {
    case .incomplete: return .incomplete
    case .invalid(let reason): return .invalid(reason)
    case .complete(let payload): return words(in: bytes, payload: payload)
    }
  }

  /// The bytes of a reply. A text too long for a reply is cut at a character, and says so in its last line.
  package static func encodeReply(_ reply: AdminReply) -> [UInt8] {
    var payload: [UInt8] = []
    appendNetstring([reply.status == 0 ? UInt8(ascii: "0") : UInt8(ascii: "1")], to: &payload)
    var text = Array(reply.text.utf8)
    let textBytesMax = replyPayloadBytesMax - payload.count - framingBytesMax
    if text.count > textBytesMax {
      let notice = Array("\n(cut: the answer was longer than a reply can be)\n".utf8)
      var end = textBytesMax - notice.count
      while end > 0, text[end] & 0xC0 == 0x80 { end -= 1 }
      text.removeSubrange(end...)
      text += notice
    }
    appendNetstring(text, to: &payload)
    return netstring(payload)
  }

  /// The reply, from all bytes received on the connection so far. Bytes of the text that are not UTF-8 are repaired.
  package static func decodeReply(_ bytes: [UInt8]) -> AdminDecoded<AdminReply> {
    let payload: Range<Int>
    switch outerPayload(of: bytes, payloadBytesMax: replyPayloadBytesMax) {
    case .incomplete: return .incomplete
    case .invalid(let reason): return .invalid(reason)
    case .complete(let range): payload = range
    }
    guard case .complete(let status) = netstring(in: bytes, within: payload, payloadBytesMax: payload.count) else {
      return .invalid("the reply holds no exit status")
    }
    let rest = (status.upperBound + 1)..<payload.upperBound
    guard case .complete(let text) = netstring(in: bytes, within: rest, payloadBytesMax: payload.count) else {
      return .invalid("the reply holds no text")
    }
    guard text.upperBound + 1 == payload.upperBound else { return .invalid("the reply holds more than two parts") }
    let repaired = String(decoding: bytes[text], as: UTF8.self)
    switch Array(bytes[status]) {
    case [UInt8(ascii: "0")]: return .complete(AdminReply(status: 0, text: repaired))
    case [UInt8(ascii: "1")]: return .complete(AdminReply(status: 1, text: repaired))
    default: return .invalid("the reply's exit status is neither 0 nor 1")
    }
  }

  /// The netstring of `payload`.
  package static func netstring(_ payload: [UInt8]) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(payload.count + framingBytesMax)
    appendNetstring(payload, to: &bytes)
    return bytes
  }

  private static func appendNetstring(_ payload: [UInt8], to bytes: inout [UInt8]) {
    bytes += Array(String(payload.count).utf8)
    bytes.append(UInt8(ascii: ":"))
    bytes += payload
    bytes.append(UInt8(ascii: ","))
  }

  private static func words(in bytes: [UInt8], payload: Range<Int>) -> AdminDecoded<[String]> {
    var words: [String] = []
    var position = payload.lowerBound
    while position < payload.upperBound {
      guard words.count < requestWordsMax else { return .invalid("the request has over \(requestWordsMax) words") }
      let rest = position..<payload.upperBound
      guard case .complete(let word) = netstring(in: bytes, within: rest, payloadBytesMax: payload.count) else {
        return .invalid("word \(words.count + 1) of the request is not a netstring")
      }
      guard let text = String(validating: bytes[word], as: UTF8.self) else {
        return .invalid("word \(words.count + 1) of the request is not UTF-8")
      }
      words.append(text)
      position = word.upperBound + 1
    }
    return .complete(words)
  }

  /// The payload of the netstring that `bytes` begin with.
  private static func outerPayload(of bytes: [UInt8], payloadBytesMax: Int) -> AdminDecoded<Range<Int>> {
    netstring(in: bytes, within: 0..<bytes.count, payloadBytesMax: payloadBytesMax)
  }

  /// The payload's range in the netstring that begins at `range`'s start and must end within it.
  private static func netstring(
    in bytes: [UInt8], within range: Range<Int>, payloadBytesMax: Int
  ) -> AdminDecoded<Range<Int>> {
    var length = 0
    var position = range.lowerBound
    while position < range.upperBound, bytes[position] != UInt8(ascii: ":") {
      let digit = Int(bytes[position]) - Int(UInt8(ascii: "0"))
      guard (0...9).contains(digit) else { return .invalid("a length must be decimal digits and a colon") }
      let digits = position - range.lowerBound
      guard digits < lengthDigitsMax, digits == 0 || length > 0 else {
        return .invalid("a length has at most \(lengthDigitsMax) digits and no leading zero")
      }
      length = length * 10 + digit
      guard length <= payloadBytesMax else { return .invalid("a length is over the limit of \(payloadBytesMax) bytes") }
      position += 1
    }
    guard position < range.upperBound else { return .incomplete }
    guard position > range.lowerBound else { return .invalid("a length is missing before its colon") }
    let payload = (position + 1)..<(position + 1 + length)
    guard payload.upperBound < range.upperBound else { return .incomplete }
    guard bytes[payload.upperBound] == UInt8(ascii: ",") else { return .invalid("a comma is missing after a payload") }
    return .complete(payload)
  }
}
