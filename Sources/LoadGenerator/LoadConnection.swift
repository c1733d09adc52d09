// One connection of a load. Plain data; must never do anything by itself.

import CompletionIO

/// What the generator keeps for a connection, in a table by the handle's slot.
struct LoadConnection {
  enum Phase: UInt8 {
    case connecting
    case open
    /// Closed or broken.
    case ended
  }

  let key: HandleKey
  var phase = Phase.connecting
  /// Where the next byte to send and the next byte to come lie in the ring of messages.
  var sendPosition: Int
  var receivePosition: Int
  /// Bytes that were decided to go out and that the socket has not taken.
  var unsentBytes = 0
  /// A write waits for the socket.
  var isWriting = false
  /// Bytes of an answer that is not whole yet.
  var partialBytes = 0
  /// Messages sent from the beginning.
  var sentCount = 0
  /// Messages that came back from the beginning.
  var backCount = 0
  /// Once an answer was wrong.
  var decoder: EchoDecoder?

  var inFlight: Int { sentCount - backCount }
}
