// A word from one thread of a test to another.

import Synchronization

/// Something that has happened or not; any thread may say so and ask.
public final class Flag: Sendable {
  private let value = Atomic<Bool>(false)

  /// Not raised yet.
  public init() {}

  /// Says that it has happened.
  public func raise() { value.store(true, ordering: .releasing) }

  /// Whether it has happened.
  public var isRaised: Bool { value.load(ordering: .acquiring) }
}
