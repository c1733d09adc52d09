// The id that scripts and operators see: which worker, which slot of it, and which use of that slot.
// Knows nothing of what a connection is.

import CompletionIO

/// A connection's id: never reused while the server runs, and valid on every worker.
///
/// The generation stands in the high bits, so that ids are small numbers while slots are young: 32 bits of generation, 22 of
/// slot, 8 of worker, and never 0.
package struct ConnectionID: Hashable, Sendable {
  /// The number scripts see as `conn.id`.
  package let rawValue: Int64

  /// The most workers that ids can tell apart.
  package static let workersMax = 256
  /// The most connections of one worker: 4 million, which at 700 bytes each would be 2.9 GB.
  package static let slotsMax = 1 << 22

  /// An id as a script or an operator gave it.
  package init(rawValue: Int64) { self.rawValue = rawValue }

  init(worker: Int, key: HandleKey) {
    rawValue = Int64(key.generation) << 30 | Int64(key.slot) << 8 | Int64(worker)
  }

  /// The 0-based index of the worker that has the connection.
  var workerIndex: Int { Int(rawValue & 0xff) }

  /// The handle on that worker's port; `.none` for a number that is no id.
  var key: HandleKey {
    guard rawValue > 0, rawValue >> 62 == 0 else { return .none }
    return HandleKey(slot: UInt32(rawValue >> 8 & 0x3f_ffff), generation: UInt32(truncatingIfNeeded: rawValue >> 30))
  }
}
