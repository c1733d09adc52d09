// The owner of one file descriptor. It must never know what the descriptor is open on.

import Glibc

/// Owner of one open file descriptor.
///
/// A descriptor must be ended by `close()` or given away by `take()`: one that is just dropped traps, because a leaked
/// descriptor number is a bug that shows only hours later.
public struct Descriptor: ~Copyable {
  /// The number, valid as long as this value lives.
  public let rawValue: CInt

  /// Takes over an open descriptor; nobody else may close it from now on.
  public init(adopting rawValue: CInt) {
    precondition(rawValue >= 0, "not a descriptor")
    self.rawValue = rawValue
  }

  /// Closes it. close(2).
  public consuming func close() {
    SystemCall.close(take())
  }

  /// Gives the number to the caller, who has to close it from now on.
  public consuming func take() -> CInt {
    let number = rawValue
    discard self
    return number
  }

  deinit { precondition(rawValue < 0, "descriptor \(rawValue) was neither closed nor taken") }
}
