// The name of an associated handle: slot and generation. It must never know what the slot holds.

/// Names one associated descriptor of one port: a slot of the port's table and the slot's generation in 64 bits.
///
/// The generation counts the slot's uses, so a key that outlived its handle is recognised although its slot and even
/// its descriptor number are in use again. Slots start at 0 and are dense; generations start at 1.
public struct HandleKey: Hashable, Sendable {
  /// Index in the port's table, from 0, dense: the owner may keep a table of its own by the same index.
  public var slot: UInt32
  /// Which use of the slot is meant, from 1; 0 is never issued.
  public var generation: UInt32

  /// A key that no port ever issues.
  public static let none = HandleKey(slot: 0, generation: 0)

  /// The key of a slot's use; only what the port issued names a handle.
  public init(slot: UInt32, generation: UInt32) {
    self.slot = slot
    self.generation = generation
  }

  /// The key from its 64 bits, as `rawValue` gave them.
  public init(rawValue: UInt64) {
    slot = UInt32(truncatingIfNeeded: rawValue)
    generation = UInt32(truncatingIfNeeded: rawValue >> 32)
  }

  /// The generation in the upper and the slot in the lower half.
  public var rawValue: UInt64 { UInt64(generation) << 32 | UInt64(slot) }
}
