// Changing a dictionary: each function is one step under its lock, whatever other threads do.

import CompletionIO
import Synchronization

/// Which keys a store is for.
enum StoreMode {
  /// Any.
  case set
  /// One that is not there.
  case add
  /// One that is there.
  case replace
}

/// How a change ended.
enum ChangeOutcome {
  /// Done; `forcible` when keys that had not expired had to go for want of memory.
  case done(forcible: Bool)
  case exists
  case notFound
  case noMemory
  /// The value is not the expected one.
  case changed
}

/// How an increment ended.
enum IncrementOutcome {
  case integer(Int64, forcible: Bool)
  case number(Double, forcible: Bool)
  case notFound
  case notANumber
  /// An integer would have become too large.
  case overflow
  case noMemory
}

/// When a stored value is to expire.
enum Lifetime {
  /// As before; a new key never does.
  case unchanged
  /// After so many nanoseconds; 0 for never.
  case nanoseconds(UInt64)
}

extension SharedDictionary {
  /// The entry of a key that has not expired; one that has is removed.
  private func liveEntry(_ hash: UInt64, _ key: UnsafeRawBufferPointer) -> EntryPointer? {
    removeExpired(atMost: Self.expiredPerChangeMax)
    guard let entry = unsafe table.find(hash, key) else { return nil }
    if unsafe !entry.isExpired(at: nowIfNeeded()) { return unsafe entry }
    unsafe remove(entry)
    return nil
  }

  private func deadline(_ lifetime: Lifetime, of entry: EntryPointer?) -> UInt64 {
    switch lifetime {
    case .unchanged: unsafe entry?.pointee.deadline.load(ordering: .relaxed) ?? 0
    case .nanoseconds(0): 0
    case .nanoseconds(let span): clock() &+ span
    }
  }

  /// Stores a value as the mode says. `mayEvict` is whether other keys may go for it.
  func store(
    _ key: UnsafeRawBufferPointer, _ value: SharedValue, mode: StoreMode, lifetime: Lifetime, flags: UInt32 = 0,
    mayEvict: Bool = true
  ) -> ChangeOutcome {
    let hash = unsafe Self.hash(key)
    return lock.withLock {
      let entry = unsafe liveEntry(hash, key)
      if mode == .add, unsafe entry != nil { return .exists }
      if mode == .replace, unsafe entry == nil { return .notFound }
      return unsafe put(
        key, hash, value, over: entry, deadline: deadline(lifetime, of: entry), flags: flags, mayEvict: mayEvict)
    }
  }

  /// Stores a value over `old`, or as a new entry.
  private func put(
    _ key: UnsafeRawBufferPointer, _ hash: UInt64, _ value: SharedValue, over old: EntryPointer?, deadline: UInt64,
    flags: UInt32, mayEvict: Bool
  ) -> ChangeOutcome {
    let now = advanceTime()
    if let old = unsafe old {
      unsafe old.pointee.usedAt.store(now, ordering: .relaxed)
      if value.kind.isWord, unsafe old.pointee.kind == value.kind, unsafe old.pointee.flags == flags {
        unsafe change(old, to: value.word, deadline: deadline)
        return .done(forcible: false)
      }
    }
    let content = unsafe value.content.count
    let total = SharedEntry.overheadBytes + key.count + content
    let oldBytes = unsafe old?.bytes ?? 0
    guard content <= Self.contentBytesMax else { return .noMemory }
    let room = unsafe makeRoom(for: total - oldBytes, total: total, of: old, mayEvict: mayEvict)
    guard room.fits else { return .noMemory }
    guard
      let entry = unsafe EntryPointer.make(
        key: key, hash: hash, value: value, flags: flags, deadline: deadline, usedAt: now)
    else { return .noMemory }
    usedBytes += total - oldBytes
    if let old = unsafe old {
      unsafe table.replace(old, by: entry)
      unsafe uses.replace(old, by: entry)
      unsafe expiries.remove(old)
      unsafe limbo.add(old)
    } else {
      unsafe enter(entry, now)
    }
    if deadline != 0 { unsafe expiries.set(entry, key: deadline) }
    return .done(forcible: room.forcible)
  }

  /// Puts a new entry into table and queue.
  func enter(_ entry: EntryPointer, _ now: UInt64) {
    unsafe limbo.add(table.insert(entry))
    unsafe uses.set(entry, key: now)
  }

  /// Changes a value that is one word, and the deadline, in place: the deadline first, so that no reader takes the new value for
  /// expired.
  private func change(_ entry: EntryPointer, to word: UInt64, deadline: UInt64) {
    if unsafe entry.pointee.deadline.load(ordering: .relaxed) != deadline { unsafe setDeadline(deadline, of: entry) }
    unsafe entry.pointee.word.store(word, ordering: .releasing)
  }

  private func setDeadline(_ deadline: UInt64, of entry: EntryPointer) {
    unsafe entry.pointee.deadline.store(deadline, ordering: .releasing)
    if deadline == 0 { unsafe expiries.remove(entry) } else { unsafe expiries.set(entry, key: deadline) }
  }

  /// Removes a key; false when there was none.
  func delete(_ key: UnsafeRawBufferPointer) -> Bool {
    let hash = unsafe Self.hash(key)
    return lock.withLock {
      guard let entry = unsafe liveEntry(hash, key) else { return false }
      unsafe remove(entry)
      return true
    }
  }

  /// Gives a key a new lifetime; false when there is none.
  func expire(_ key: UnsafeRawBufferPointer, _ lifetime: Lifetime) -> Bool {
    let hash = unsafe Self.hash(key)
    return lock.withLock {
      guard let entry = unsafe liveEntry(hash, key) else { return false }
      unsafe setDeadline(deadline(lifetime, of: entry), of: entry)
      return true
    }
  }

  /// Stores `new` if the value is `old`; nil stands for no key in both places.
  func compareAndSet(
    _ key: UnsafeRawBufferPointer, old: SharedValue?, new: SharedValue?, lifetime: Lifetime
  ) -> ChangeOutcome {
    let hash = unsafe Self.hash(key)
    return lock.withLock {
      let entry = unsafe liveEntry(hash, key)
      if let entry = unsafe entry {
        guard let old, let value = unsafe entry.value, value.equals(old) else { return .changed }
      } else if old != nil {
        return .notFound
      }
      if let new {
        let flags = unsafe entry?.pointee.flags ?? 0
        return unsafe put(
          key, hash, new, over: entry, deadline: deadline(lifetime, of: entry), flags: flags, mayEvict: true)
      }
      if let entry = unsafe entry { unsafe remove(entry) }
      return .done(forcible: false)
    }
  }

  /// Adds to a number. Without the key, `initial` is taken for its value, and the new key gets the lifetime; nil fails then.
  func increment(
    _ key: UnsafeRawBufferPointer, by amount: SharedValue, initial: SharedValue?, lifetime: Lifetime
  ) -> IncrementOutcome {
    let hash = unsafe Self.hash(key)
    return lock.withLock {
      let entry = unsafe liveEntry(hash, key)
      let start: SharedValue
      if let entry = unsafe entry {
        guard let value = unsafe entry.value else { return .notANumber }
        start = value
      } else {
        guard let initial else { return .notFound }
        start = initial
      }
      let sum: SharedValue
      switch Self.add(start, amount) {
      case .success(let value): sum = value
      case .failure(let problem): return problem.outcome
      }
      // An increment of what is there leaves its deadline alone.
      let deadline = unsafe deadline(entry == nil ? lifetime : .unchanged, of: entry)
      let flags = unsafe entry?.pointee.flags ?? 0
      let outcome = unsafe put(key, hash, sum, over: entry, deadline: deadline, flags: flags, mayEvict: true)
      guard case .done(let forcible) = outcome else { return .noMemory }
      switch sum {
      case .integer(let integer): return .integer(integer, forcible: forcible)
      case .number(let number): return .number(number, forcible: forcible)
      case .boolean, .bytes, .plain: return .notANumber
      }
    }
  }

  private enum AdditionProblem: Error {
    case notANumber
    case overflow

    var outcome: IncrementOutcome {
      switch self {
      case .notANumber: .notANumber
      case .overflow: .overflow
      }
    }
  }

  /// The sum: an integer of two integers, else a float.
  private static func add(_ one: SharedValue, _ two: SharedValue) -> Result<SharedValue, AdditionProblem> {
    switch (one, two) {
    case (.integer(let one), .integer(let two)):
      let (sum, overflows) = one.addingReportingOverflow(two)
      return overflows ? .failure(.overflow) : .success(.integer(sum))
    case (.number(let one), .number(let two)): return .success(.number(one + two))
    case (.integer(let integer), .number(let number)), (.number(let number), .integer(let integer)):
      return .success(.number(Double(integer) + number))
    default: return .failure(.notANumber)
    }
  }
}
