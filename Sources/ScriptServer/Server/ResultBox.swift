// A result that one thread makes and another waits for. Must never know what of.

import CompletionIO

/// Hands one result from thread to thread; the first one that is set stays.
final class ResultBox<Value: Sendable>: @unchecked Sendable {
  private let condition = ThreadCondition()
  private var result: Result<Value, ServerFailure>?

  /// Enters the result, unless there is one; returns whether it is the one that counts.
  @discardableResult
  func set(_ result: Result<Value, ServerFailure>) -> Bool {
    condition.withLock {
      guard self.result == nil else { return false }
      self.result = result
      condition.broadcast()
      return true
    }
  }

  /// Blocks until there is one.
  func wait() -> Result<Value, ServerFailure> {
    condition.withLock {
      while true {
        if let result { return result }
        condition.wait()
      }
    }
  }
}
