// The meeting of all workers around a new generation: all switch, or none does.
//
// Loading happens first, each worker at its own time while it serves (`prepare`). Then all stop between two messages
// (`commit`): they arrive, deliver and send whatever the old code has decided, hand the state over, and learn together how it
// ended. Nobody sends an answer of the new code before everybody's old answers are out.

import CompletionIO

/// One attempt to make a snapshot live. Between threads; every field is guarded by the condition's lock.
final class ReloadTransaction: @unchecked Sendable {
  let number: Int
  let snapshot: Snapshot
  /// The server's index of each listener, in the order of the script's calls.
  let listeners: [UInt16]
  /// Counters of the same listeners.
  let counters: [ListenerCounters]
  /// What the scratch run found them to be.
  let plan: [ListenerSettings]

  private enum Stage { case loading, meeting, handingOver, decided }

  private let condition = ThreadCondition()
  private let participants: Int
  private var stage = Stage.loading
  private var answers = 0
  private var failure: String?
  private var succeeded = false
  /// Workers that have sent the last of what the old code decided while it handed over.
  private var delivered = 0
  /// Workers on which the new generation is live.
  private var switched = 0

  /// CPU time that a worker may spend on loading, in nanoseconds.
  private let loadBudgetNanoseconds: UInt64
  /// How long the meeting waits for a worker that is busy with a handler, and then for each to deliver what the old code has sent; the
  /// others stand still meanwhile.
  let meetingNanoseconds: UInt64

  init(
    number: Int, snapshot: Snapshot, plan: [ListenerSettings], listeners: [UInt16], counters: [ListenerCounters],
    loadBudgetNanoseconds: UInt64, participants: Int, meetingNanoseconds: UInt64 = 2_000_000_000
  ) {
    self.meetingNanoseconds = meetingNanoseconds
    self.number = number
    self.snapshot = snapshot
    self.plan = plan
    self.listeners = listeners
    self.counters = counters
    self.loadBudgetNanoseconds = loadBudgetNanoseconds
    self.participants = participants
  }

  // MARK: The one who asked

  /// Waits until every worker has loaded the snapshot; the first failure, or nil.
  func waitUntilLoaded() -> String? {
    condition.withLock {
      let deadline = CompletionPort.clock() + 4 * loadBudgetNanoseconds
      while answers < participants, condition.wait(untilNanoseconds: deadline) {}
      if answers < participants, failure == nil {
        failure =
          "\(participants - answers) of \(participants) workers did not load the script in time: a handler, or much that was sent to"
          + " them, keeps them busy"
      }
      stage = failure == nil ? .meeting : .decided
      answers = 0
      return failure
    }
  }

  /// Waits until the workers have switched or given up; the first failure, or nil.
  func waitUntilDecided() -> String? {
    condition.withLock {
      while stage != .decided || succeeded && switched < participants { condition.wait() }
      return failure
    }
  }

  // MARK: The workers

  /// A worker has loaded the snapshot, or failed to.
  func loaded(_ problem: String?) {
    condition.withLock {
      answers += 1
      if failure == nil { failure = problem }
      condition.broadcast()
    }
  }

  /// A worker stands between two messages; returns once all do, or false when one did not come.
  func meet() -> Bool {
    condition.withLock {
      guard stage == .meeting else { return false }
      answers += 1
      if answers == participants {
        stage = .handingOver
        answers = 0
        condition.broadcast()
        return true
      }
      let deadline = CompletionPort.clock() + meetingNanoseconds
      while stage == .meeting, condition.wait(untilNanoseconds: deadline) {}
      if stage == .meeting { decide(Self.notMet) }
      return stage == .handingOver
    }
  }

  private static let notMet =
    "a worker did not stop for the reload in time: a handler, or much that was sent to it, keeps it busy"

  /// A worker will not come to the meeting.
  func giveUp(_ problem: String) {
    condition.withLock { if stage == .meeting { decide(problem) } }
  }

  /// A worker has handed its state over, or failed to; returns what all decided.
  func decide(handedOver problem: String?) -> Bool {
    condition.withLock {
      answers += 1
      if failure == nil { failure = problem }
      if answers == participants { decide(failure) }
      while stage != .decided { condition.wait() }
      return succeeded
    }
  }

  /// A worker has sent what the old code decided while it handed over; returns once all have, or one takes too long.
  func waitUntilDelivered() {
    condition.withLock {
      delivered += 1
      condition.broadcast()
      let deadline = CompletionPort.clock() + meetingNanoseconds
      while delivered < participants, condition.wait(untilNanoseconds: deadline) {}
    }
  }

  /// The new generation is live on a worker; whatever it does next, it does with the new code.
  func hasSwitched() {
    condition.withLock {
      switched += 1
      condition.broadcast()
    }
  }

  /// Ends it; under the lock.
  private func decide(_ problem: String?) {
    failure = problem
    succeeded = problem == nil
    stage = .decided
    condition.broadcast()
  }
}
