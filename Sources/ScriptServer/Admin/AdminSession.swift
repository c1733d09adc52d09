// One admin client as the server sees it: bytes in, a request out, a reply's bytes out. Pure state: reading, writing,
// closing and carrying requests out belong to the control thread that owns it.

/// The state of one admin client, from its first byte to its reply.
///
/// The owner passes on what it reads with `receive`, carries out the request that comes of it, and writes what
/// `reply` returns. After the reply the owner closes; for `stop` and `drain` it may leave the connection open until
/// the process ends, and the client then waits for that end (`AdminRequest.endsServer`).
package struct AdminSession: Sendable {
  /// What the received bytes amount to.
  package enum Event: Sendable, Equatable {
    /// Go on reading.
    case incomplete
    /// Carry this out, then write what `reply` returns.
    case request(AdminRequest)
    /// No request will come of these bytes: write the given bytes, then close.
    case refused(reply: [UInt8])
    /// Bytes after the request was complete: they mean nothing, drop them.
    case ignored
  }

  private enum State {
    case reading
    case answering
    case answered
  }

  /// Most bytes that a session holds: the longest request with its framing.
  package static let receivedBytesMax = AdminProtocol.requestPayloadBytesMax + AdminProtocol.framingBytesMax

  private var state = State.reading
  private var received: [UInt8] = []

  package init() {}

  /// Whether the reply is on its way, so that the connection ends when it is written.
  package var isAnswered: Bool { state == .answered }

  /// Takes what one read delivered.
  package mutating func receive(_ bytes: some Collection<UInt8>) -> Event {
    guard state == .reading else { return .ignored }
    // So many bytes are a request or can never become one: nothing is missing of a request that was cut here.
    received += bytes.prefix(Self.receivedBytesMax - received.count)
    switch AdminProtocol.decodeRequest(received) {
    case .incomplete: return .incomplete
    case .invalid(let reason): return refuse(reason)
    case .complete(let words): return begin(words)
    }
  }

  /// The bytes that answer the request. Asked for once, after `.request`.
  package mutating func reply(_ reply: AdminReply) -> [UInt8] {
    precondition(state == .answering, "an admin session answers once, after its request")
    state = .answered
    return AdminProtocol.encodeReply(reply)
  }

  private mutating func begin(_ words: [String]) -> Event {
    received = []
    do throws(AdminFailure) {
      let request = try AdminRequest(words: words)
      state = .answering
      return .request(request)
    } catch {
      return refuse(error.message)
    }
  }

  private mutating func refuse(_ reason: String) -> Event {
    state = .answered
    received = []
    return .refused(reply: AdminProtocol.encodeReply(AdminReply(status: 1, text: reason)))
  }
}
