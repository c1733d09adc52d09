// Whether what several threads saw of one value can be explained: an order of all operations in which each has the effect and the result
// that it would have alone, and in which none comes before one that had ended when it began. That is linearizability (Herlihy and
// Wing, 1990), looked for as Wing and Gong do.
//
// Must never know: what held the value.

/// A value as the histories have it.
package enum RegisterValue: Hashable, Sendable {
  case integer(Int)
  case text(String)
}

/// One operation and its result.
package enum RegisterStep: Hashable, Sendable {
  case get(RegisterValue?)
  case set(RegisterValue)
  case add(RegisterValue, done: Bool)
  case replace(RegisterValue, done: Bool)
  case delete(existed: Bool)
  case compareAndSet(RegisterValue?, RegisterValue?, done: Bool)
  /// The sum, or nil when there was no number to add to.
  case increment(Int, initial: Int?, sum: Int?)

  /// What the value is after the operation, if its result is one that it can have on `value`; else nil.
  func effect(on value: RegisterValue?) -> RegisterValue?? {
    switch self {
    case .get(let seen): return seen == value ? .some(value) : nil
    case .set(let new): return .some(new)
    case .add(let new, let done): return done == (value == nil) ? .some(done ? new : value) : nil
    case .replace(let new, let done): return done == (value != nil) ? .some(done ? new : value) : nil
    case .delete(let existed): return existed == (value != nil) ? .some(nil) : nil
    case .compareAndSet(let old, let new, let done): return done == (value == old) ? .some(done ? new : value) : nil
    case .increment(let amount, let initial, let sum):
      let start: Int?
      switch value {
      case .integer(let number): start = number
      case .text: start = nil
      case nil: start = initial
      }
      guard sum == start.map({ $0 + amount }) else { return nil }
      return .some(sum.map { .integer($0) } ?? value)
    }
  }
}

/// An operation with its place in time: any numbers that grow with time will do.
package struct RegisterOperation: Sendable {
  package var step: RegisterStep
  package var began: Int
  package var ended: Int

  package init(_ step: RegisterStep, began: Int, ended: Int) {
    self.step = step
    self.began = began
    self.ended = ended
  }
}

/// Whether the operations of several threads, each thread's in its order, on a value that is not there at first can be explained.
package func isLinearizable(_ threads: [[RegisterOperation]]) -> Bool {
  struct Situation: Hashable {
    var next: [Int]
    var value: RegisterValue?
  }
  var open = [Situation(next: threads.map { _ in 0 }, value: nil)]
  var seen = Set(open)
  while let situation = open.popLast() {
    var isEnd = true
    for thread in threads.indices where situation.next[thread] < threads[thread].count {
      isEnd = false
      let operation = threads[thread][situation.next[thread]]
      let comesTooEarly = threads.indices.contains { other in
        other != thread && situation.next[other] < threads[other].count
          && threads[other][situation.next[other]].ended < operation.began
      }
      guard !comesTooEarly, let value = operation.step.effect(on: situation.value) else { continue }
      var following = Situation(next: situation.next, value: value)
      following.next[thread] += 1
      if seen.insert(following).inserted { open.append(following) }
    }
    if isEnd { return true }
  }
  return false
}
