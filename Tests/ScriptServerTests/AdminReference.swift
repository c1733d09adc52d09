// What the bytes on an admin socket mean, told a second time and in another way than AdminProtocol does: byte by byte. The fuzz tests
// compare the two.
//
// Must never know: how the decoders under test are written.

import ScriptServer

/// A netstring that is read one byte at a time. See http://cr.yp.to/proto/netstrings.txt.
struct ReferenceNetstring {
  enum Progress { case more, done, broken }

  private enum State {
    /// The value of the digits so far, and how many there were.
    case length(Int, digits: Int)
    case payload(missing: Int)
    case ended(Progress)
  }

  private let payloadBytesMax: Int
  private var state = State.length(0, digits: 0)
  private(set) var payload: [UInt8] = []

  init(payloadBytesMax: Int) { self.payloadBytesMax = payloadBytesMax }

  mutating func take(_ byte: UInt8) -> Progress {
    switch state {
    case .length(_, digits: 0) where byte == UInt8(ascii: ":"): return end(.broken)
    case .length(let length, _) where byte == UInt8(ascii: ":"): state = .payload(missing: length)
    case .length(0, digits: 1): return end(.broken)
    case .length(let length, let digits): return take(digit: byte, after: digits, length)
    case .payload(0): return end(byte == UInt8(ascii: ",") ? .done : .broken)
    case .payload(let missing):
      payload.append(byte)
      state = .payload(missing: missing - 1)
    case .ended(let progress): return progress
    }
    return .more
  }

  private mutating func take(digit: UInt8, after digits: Int, _ length: Int) -> Progress {
    guard digit >= 0x30, digit <= 0x39, digits < 8 else { return end(.broken) }
    let longer = length * 10 + Int(digit - 0x30)
    guard longer <= payloadBytesMax else { return end(.broken) }
    state = .length(longer, digits: digits + 1)
    return .more
  }

  private mutating func end(_ progress: Progress) -> Progress {
    state = .ended(progress)
    return progress
  }
}

/// What a stream of bytes comes to.
enum ReferenceVerdict<Value: Sendable & Equatable>: Sendable, Equatable {
  case incomplete
  /// The first `bytes` bytes are the message.
  case message(Value, bytes: Int)
  /// After `bytes` bytes it is clear that there will be no message.
  case broken(bytes: Int)
}

/// The words of the request that `stream` begins with.
func referenceRequest(_ stream: [UInt8]) -> ReferenceVerdict<[String]> {
  referenceMessage(stream, payloadBytesMax: AdminProtocol.requestPayloadBytesMax) { payload in
    guard let parts = referenceParts(payload), parts.count <= AdminProtocol.requestWordsMax else { return nil }
    let words = parts.compactMap { String(validating: $0, as: UTF8.self) }
    return words.count == parts.count ? words : nil
  }
}

/// The reply that `stream` begins with.
func referenceReply(_ stream: [UInt8]) -> ReferenceVerdict<AdminReply> {
  referenceMessage(stream, payloadBytesMax: AdminProtocol.replyPayloadBytesMax) { payload in
    guard let parts = referenceParts(payload), parts.count == 2 else { return nil }
    guard parts[0] == Array("0".utf8) || parts[0] == Array("1".utf8) else { return nil }
    return AdminReply(status: parts[0] == Array("0".utf8) ? 0 : 1, text: String(decoding: parts[1], as: UTF8.self))
  }
}

private func referenceMessage<Value: Sendable & Equatable>(
  _ stream: [UInt8], payloadBytesMax: Int, _ meaning: ([UInt8]) -> Value?
) -> ReferenceVerdict<Value> {
  var outer = ReferenceNetstring(payloadBytesMax: payloadBytesMax)
  for (index, byte) in stream.enumerated() {
    switch outer.take(byte) {
    case .more: continue
    case .broken: return .broken(bytes: index + 1)
    case .done: return meaning(outer.payload).map { .message($0, bytes: index + 1) } ?? .broken(bytes: index + 1)
    }
  }
  return .incomplete
}

/// The payloads of the netstrings that `payload` consists of, nil when it is anything else.
private func referenceParts(_ payload: [UInt8]) -> [[UInt8]]? {
  var parts: [[UInt8]] = []
  var part = ReferenceNetstring(payloadBytesMax: payload.count)
  var isWhole = true
  for byte in payload {
    isWhole = false
    switch part.take(byte) {
    case .more: continue
    case .broken: return nil
    case .done:
      parts.append(part.payload)
      part = ReferenceNetstring(payloadBytesMax: payload.count)
      isWhole = true
    }
  }
  return isWhole ? parts : nil
}
