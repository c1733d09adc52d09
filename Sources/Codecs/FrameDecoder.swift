// Cuts one message after the other off a connection's bytes. It branches by codec and leaves the work to that codec's
// file. It must never own, copy or move the bytes.

/// What came of one attempt to cut a message off.
public enum FrameStep: Equatable, Sendable {
  /// A message: its payload lies at `payload`, and the first `consumed` bytes are done with. `payload` lies within
  /// them, and `consumed` is never 0.
  case message(payload: Range<Int>, consumed: Int)
  /// The bytes end before the message does. Nothing is consumed.
  case incomplete
  /// No message can come of these bytes, whatever follows. Nothing is consumed, and asking again fails again.
  case failed(FrameError)
}

/// What is known of the message now being collected. Trivial, one per connection.
public struct FrameDecoder: Sendable {
  /// Bytes at the front of the current message that need no second look; 0 between messages.
  private var scanned = 0

  /// Between two messages.
  public init() {}

  /// Cuts the next message off `bytes`, which starts at the first byte not yet consumed and holds everything that
  /// arrived since.
  ///
  /// After `.incomplete` the caller keeps the bytes and calls again with the same bytes and more behind them, wherever
  /// they lie by then; what was scanned is remembered, so a message that arrives in n pieces is scanned once.
  public mutating func next(_ codec: Codec, in bytes: UnsafeRawBufferPointer) -> FrameStep {
    precondition(scanned <= bytes.count, "bytes were taken away without reset()")
    switch codec {
    case .raw:
      return unsafe RawDecoder.next(in: bytes)
    case .line(let maxLength):
      return unsafe LineDecoder.next(in: bytes, scanned: &scanned, maxLength: maxLength)
    case .delimiter(let delimiter, let maxLength):
      return unsafe DelimiterDecoder.next(in: bytes, scanned: &scanned, delimiter: delimiter, maxLength: maxLength)
    case .fixed(let length):
      return unsafe FixedDecoder.next(in: bytes, length: length)
    case .lengthField(let field):
      return unsafe LengthFieldDecoder.next(in: bytes, field: field)
    case .netstring(let maxLength):
      return unsafe NetstringDecoder.next(in: bytes, maxLength: maxLength)
    }
  }

  /// Forgets what was scanned: the codec changed, or bytes were taken by other means.
  public mutating func reset() {
    scanned = 0
  }
}
