// The id that scripts and operators see: which worker, which slot of it, and which use of that slot.
// Knows nothing of what a connection is.

import CompletionIO

/// A connection's id: never reused while the server runs, and valid on every worker.
///
/// Ids are small numbers while a server is young, since they are typed by people: the worker, counted from 1, in the lowest 9
/// bits, above it 22 bits of slot, above that 32 bits that count the slot's uses from 0. Never 0, never negative.
package struct ConnectionID: Hashable, Sendable {
  /// The number scripts see as `conn.id`.
  package let rawValue: Int64

  /// The most workers that ids can tell apart.
  package static let workersMax = 256
  /// The most connections of one worker: 4 million, which at 700 bytes each would be 2.9 GB.
  package static let slotsMax = 1 << slotBits

  private static let workerBits = 9
  private static let slotBits = 22

  /// An id as a script or an operator gave it.
  package init(rawValue: Int64) { self.rawValue = rawValue }

  /// The id of the connection with this key on the worker with this 0-based index. The key's slot is below `slotsMax`.
  init(worker: Int, key: HandleKey) {
    let uses = Int64(key.generation) - 1
    rawValue = (uses << Self.slotBits | Int64(key.slot)) << Self.workerBits | Int64(worker + 1)
  }

  /// The 0-based index of the worker that has the connection; below 0 or beyond the workers for a number that is no id.
  @inline(__always)
  var workerIndex: Int { Int(rawValue & (1 << Self.workerBits - 1)) - 1 }

  /// The handle on that worker's port; `.none` for a number that is no id.
  @inline(__always)
  var key: HandleKey {
    guard rawValue > 0 else { return .none }
    let use = rawValue >> Self.workerBits
    // Beyond 2^32 - 1 uses no slot is used again, so that this sum fits.
    let generation = UInt32(truncatingIfNeeded: use >> Self.slotBits) &+ 1
    return HandleKey(slot: UInt32(use & Int64(Self.slotsMax - 1)), generation: generation)
  }
}
