// Why bytes from a peer cannot be cut into messages. It must never be used for what a script sends: that is a
// FramingError.

/// The end of a stream's decoding: no later bytes can mend it, and the connection is to be closed.
public enum FrameError: Error, Equatable, Sendable, CustomStringConvertible {
  /// The message now arriving has, or announces, more than `limit` bytes.
  case tooLong(limit: Int)
  /// The bytes cannot be a message.
  case malformed(reason: StaticString)

  /// One sentence for a log. It holds nothing that the peer sent.
  public var description: String {
    switch self {
    case .tooLong(let limit): "the message is longer than max_length, \(limit) bytes"
    case .malformed(let reason): "the bytes are no message: \(reason)"
    }
  }

  /// Whether both are the same error.
  public static func == (left: FrameError, right: FrameError) -> Bool {
    switch (left, right) {
    case (.tooLong(let leftLimit), .tooLong(let rightLimit)): leftLimit == rightLimit
    case (.malformed(let leftReason), .malformed(let rightReason)):
      String(describing: leftReason) == String(describing: rightReason)
    case (.tooLong, .malformed), (.malformed, .tooLong): false
    }
  }
}
