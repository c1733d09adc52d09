// What a worker counts for `status`. One thread writes, any thread reads; the figures are exact but of slightly different
// moments.

import Synchronization

/// A count with one writer.
struct Counter: ~Copyable {
  private let value = Atomic<Int>(0)

  /// Adds without a locked instruction: there is only one writer.
  @inline(__always)
  func add(_ amount: Int) {
    value.store(value.load(ordering: .relaxed) &+ amount, ordering: .relaxed)
  }

  func set(_ amount: Int) { value.store(amount, ordering: .relaxed) }

  var current: Int { value.load(ordering: .relaxed) }
}

/// The counters of one worker.
final class WorkerCounters: Sendable {
  let messagesIn = Counter()
  let messagesOut = Counter()
  let bytesIn = Counter()
  let bytesOut = Counter()
  /// Open connections that scripts have made.
  let outgoing = Counter()
  /// Errors that scripts raised.
  let errors = Counter()
  /// Messages not queued or dropped because of an output limit, or a full mailbox.
  let dropped = Counter()
  /// Messages that this worker's code published to channels.
  let published = Counter()
  /// Subscriptions' functions started on this worker.
  let delivered = Counter()
  /// Subscriptions of this worker, those of a generation that is being loaded included.
  let subscriptions = Counter()
  let luaBytes = Counter()
  /// Suspended handlers and tasks of generations before the current one.
  let olderTasks = Counter()
  /// Runs that were ended by their CPU budget.
  let budgetErrors = Counter()
  /// How often scripts ran out of memory.
  let memoryErrors = Counter()
  let turns = Counter()
  /// Time spent in turns, waiting not counted, in nanoseconds.
  let busyNanoseconds = Counter()
  let longestTurnNanoseconds = Counter()
  /// Open connections: the server adds when it places one, the worker subtracts when one ends, so this one is locked.
  let connections = Atomic<Int>(0)
}

/// The counters of one listener.
final class ListenerCounters: Sendable {
  let accepted = Atomic<Int>(0)
  let open = Atomic<Int>(0)
  let refused = Atomic<Int>(0)
}
