// The outbox of the connection whose messages are handled: while more of its messages are at hand, what its handler answers goes
// straight to the end of its send queue, and the worker hears of it before it does anything else.

import Codecs
import CompletionIO
import LuaRuntime

extension Worker {
  /// Lets the next answers to this connection go into its queue directly, if it has more messages to be answered now, and its queue
  /// room that needs no look at the limits.
  @inline(__always)
  func offer(_ outbox: HostOutbox, to connection: UnsafeMutablePointer<Connection>, _ codec: Codec) {
    if unsafe cutting.offset < cutting.bytes.count { unsafe open(outbox, of: connection, codec) }
  }

  private func open(_ outbox: HostOutbox, of connection: UnsafeMutablePointer<Connection>, _ codec: Codec) {
    let limit = unsafe limit(of: connection).unwatchedBytes - connection.pointee.output.count
    guard unsafe cutting.key == connection.pointee.key, gathered.isEmpty, codec.hasConstantSuffix,
      let room = unsafe connection.pointee.output.spare(limit: limit), let framing = try? codec.framing(payloadCount: 0)
    else { return }
    unsafe outbox.open(room, copySuffix: { unsafe framing.copySuffix(to: $0) }) { context, count, messages in
      unsafe Worker.lend(context) { $0.closedOutbox(bytes: count, messages: messages) }
    }
  }

  /// So much was put into the outbox of the connection that is being cut. It is in the list of those to flush already.
  private func closedOutbox(bytes: Int, messages: UInt32) {
    guard let connection = unsafe cutting.connection else { preconditionFailure("an outbox of nobody") }
    unsafe connection.pointee.output.extend(by: bytes)
    unsafe connection.pointee.messagesOut &+= messages
    counters.messagesOut.add(Int(messages))
  }
}
