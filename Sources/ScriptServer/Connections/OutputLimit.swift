// How much may wait for a client that does not read, and what happens beyond it. Pure settings.

import CompletionIO

/// What happens to a message for which there is no room.
package enum OverflowPolicy: String, Sendable, CaseIterable {
  /// The connection ends with "overflow".
  case close
  /// The message is not queued.
  case dropNewest = "drop_newest"
  /// The oldest messages still waiting make room, whole messages only.
  case dropOldest = "drop_oldest"
  /// Reading from the client stops at the soft limit until its queue is empty; beyond the hard limit nothing is queued.
  case pause
}

/// The bounds of a send queue, in bytes.
package struct OutputLimit: Sendable, Equatable {
  /// Never exceeded, whatever the policy.
  package var hardBytes = 8_388_608 { didSet { settle() } }
  /// May be exceeded for `softSeconds`; an `on_drain` follows once the queue is empty again.
  package var softBytes = 1_048_576 { didSet { settle() } }
  /// How long a queue may stay over the soft limit under the policy `close`.
  package var softSeconds = 60.0
  package var policy = OverflowPolicy.close { didSet { settle() } }
  /// A queue that stays within this many bytes needs no look at the limits, nor at how full it has become; below 0 where each
  /// message needs one.
  private(set) var unwatchedBytes = 0

  /// Messages that may wait. Those that may be dropped one by one are kept in blocks of their own, which many tiny ones would fill a
  /// memory of many times `hardBytes` with: they hold four times that at most, or a megabyte.
  private(set) var messagesMax = UInt32.max

  /// Bytes queued in the midst of a turn after which sending begins at once: one usual socket buffer.
  static let earlyFlushBytes = 262_144

  package init() { settle() }

  /// Whether a message of `count` bytes may wait behind those of `queue`.
  func takes(_ count: Int, behind queue: SendQueue) -> Bool {
    queue.count + count <= hardBytes && queue.chunkCount < messagesMax
  }

  private mutating func settle() {
    // What may be dropped later is kept message by message.
    messagesMax =
      policy == .dropOldest ? UInt32(clamping: max(4 * hardBytes, 1 << 20) / BufferPool.smallestBytes) : .max
    unwatchedBytes = policy == .dropOldest ? -1 : min(hardBytes, softBytes, Self.earlyFlushBytes)
  }
}
