// What a connection's answers are once one of them was wrong: cut by the codec, message by message. Until then whole reads are compared
// (MessageRing). Must never know sockets.

import Codecs

/// Cuts answers and compares each with what was sent. Only for connections on which something differed, so it may allocate.
final class EchoDecoder {
  /// Bytes of an answer that a report shows.
  private static let shownBytesMax = 48

  private let codec: Codec
  private var decoder = FrameDecoder()
  private var buffer = InboundBuffer()
  /// Where the frame of the next expected message begins in the ring.
  private var position: Int

  /// Expects the message whose frame begins at `position`, and has its first bytes already.
  init(_ codec: Codec, position: Int, arrived: UnsafeRawBufferPointer) {
    // Raw bytes have no messages; those of the size that was sent stand in for them.
    self.codec = codec
    self.position = position
    _ = unsafe buffer.append(arrived, limit: codec.unconsumedMax + arrived.count)
  }

  /// What came of the bytes that were added.
  struct Outcome {
    var messages = 0
    var mismatches = 0
    /// The first difference, for the user.
    var difference: String?
    /// The bytes can be no message of the codec.
    var failure: String?
  }

  func add(_ bytes: UnsafeRawBufferPointer, ring: borrowing MessageRing) -> Outcome {
    var outcome = Outcome()
    guard unsafe buffer.append(bytes, limit: codec.unconsumedMax + bytes.count) else {
      outcome.failure = "there is no memory for an answer"
      return outcome
    }
    let codec = codec == .raw ? Codec.fixed(length: ring.payloadBytes) : codec
    while !buffer.isEmpty {
      switch unsafe decoder.next(codec, in: buffer.bytes) {
      case .incomplete: return outcome
      case .failed(let error):
        outcome.failure = "what came back is no message of codec \(codec.name): \(error)"
        return outcome
      case .message(let range, let consumed):
        unsafe compare(UnsafeRawBufferPointer(rebasing: buffer.bytes[range]), ring, &outcome)
        buffer.consume(consumed)
      }
    }
    return outcome
  }

  private func compare(_ payload: UnsafeRawBufferPointer, _ ring: borrowing MessageRing, _ outcome: inout Outcome) {
    let expected = unsafe ring.payload(at: position)
    position = ring.advanced(position, by: ring.frameBytes)
    outcome.messages += 1
    if unsafe payload.elementsEqual(expected) { return }
    outcome.mismatches += 1
    if outcome.difference == nil {
      outcome.difference = unsafe "sent \(Self.shown(expected)), got back \(Self.shown(payload))"
    }
  }

  private static func shown(_ bytes: UnsafeRawBufferPointer) -> String {
    let text = unsafe String(decoding: bytes.prefix(shownBytesMax), as: UTF8.self)
    return "\(text.debugDescription)\(bytes.count > shownBytesMax ? "..." : "") (\(bytes.count) bytes)"
  }
}
