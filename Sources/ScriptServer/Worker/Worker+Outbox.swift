// The outbox of the connection whose messages are handled: while more of its messages are at hand, they are cut ahead and handed over
// without asking for each, and what its handler answers goes straight to the end of its send queue. The worker hears of both before
// it does anything else.

import Codecs
import CompletionIO
import LuaRuntime

/// Messages of one connection that were cut ahead of their time. Owned by the worker's thread.
@safe
struct CutAhead: ~Copyable {
  /// More than most clients have in flight, and few enough to be written in no time.
  private static let messagesMax = 64

  private let messages = UnsafeMutablePointer<CutMessage>.allocate(capacity: messagesMax)
  private(set) var count = 0
  /// How many are cut at once: fewer where handlers do other things than answer, since what is not taken is cut in vain.
  private var most = messagesMax

  deinit { unsafe messages.deallocate() }

  /// The first `taken` messages were handed over; returns what comes behind them, nil where there was none.
  mutating func take(_ taken: Int) -> Int? {
    precondition(taken <= count, "more messages were taken than were cut")
    most = taken == count ? min(4 * most, Self.messagesMax) : max(taken, 1)
    return unsafe taken == 0 ? nil : messages[taken - 1].behind
  }

  /// All of them, valid until the next `fill`.
  var all: UnsafeBufferPointer<CutMessage> { unsafe UnsafeBufferPointer(start: messages, count: count) }

  /// Cuts messages off `bytes` from `offset` on, at most `limit`, until one is incomplete or refused.
  mutating func fill(
    from bytes: UnsafeRawBufferPointer, at offset: Int, _ decoder: inout FrameDecoder, _ codec: Codec, limit: Int
  ) {
    count = 0
    var offset = offset
    let limit = min(limit, most)
    while count < limit, offset < bytes.count {
      let start = unsafe bytes.baseAddress! + offset
      let rest = unsafe UnsafeRawBufferPointer(start: start, count: bytes.count - offset)
      guard case .message(let payload, let consumed) = unsafe decoder.next(codec, in: rest) else { return }
      offset += consumed
      let message = unsafe LuaBytes(start + payload.lowerBound, count: payload.count)
      unsafe (messages + count).initialize(to: CutMessage(message, behind: offset))
      count += 1
    }
  }
}

extension Worker {
  /// Lets the next messages of this connection be answered without asking, if there are more and its queue has room that needs no
  /// look at the limits.
  @inline(__always)
  func offer(_ outbox: HostOutbox, to connection: UnsafeMutablePointer<Connection>, _ codec: Codec) {
    if unsafe cutting.offset < cutting.bytes.count { unsafe open(outbox, of: connection, codec) }
  }

  private func open(_ outbox: HostOutbox, of connection: UnsafeMutablePointer<Connection>, _ codec: Codec) {
    let limit = unsafe limit(of: connection).unwatchedBytes - connection.pointee.output.count
    guard unsafe cutting.key == connection.pointee.key, gathered.isEmpty, codec.hasConstantSuffix,
      let room = unsafe connection.pointee.output.spare(limit: limit), let framing = try? codec.framing(payloadCount: 0)
    else { return }
    let mayGoOn = unsafe mayHandOverNext(connection)
    unsafe cutAhead.fill(
      from: cutting.bytes, at: cutting.offset, &connection.pointee.decoder, codec, limit: mayGoOn ? cutting.left : 0)
    unsafe outbox.open(room, cutAhead.all, copySuffix: { unsafe framing.copySuffix(to: $0) }) {
      context, count, messages, taken in
      unsafe Worker.lend(context) { $0.closedOutbox(bytes: count, messages: messages, taken: taken) }
    }
  }

  /// So much was put into the outbox of the connection that is being cut, and so many messages were taken. The connection is in the
  /// list of those to flush already.
  private func closedOutbox(bytes: Int, messages: UInt32, taken: Int) {
    guard let connection = unsafe cutting.connection else { preconditionFailure("an outbox of nobody") }
    unsafe connection.pointee.output.extend(by: bytes)
    unsafe connection.pointee.messagesOut &+= messages
    counters.messagesOut.add(Int(messages))
    // What was looked at and not taken is looked at again.
    if taken < cutAhead.count { unsafe connection.pointee.decoder.reset() }
    guard let behind = cutAhead.take(taken) else { return }
    cutting.offset = behind
    spendMessages(taken)
    unsafe countMessages(connection, taken)
  }
}
