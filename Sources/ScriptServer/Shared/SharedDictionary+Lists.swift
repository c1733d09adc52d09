// Lists in a dictionary. A key holds a list from the first push until the last element is taken out; each call is one step under
// the dictionary's lock.

import CompletionIO
import Synchronization

/// How a call on a list ended.
enum ListOutcome {
  /// Elements after the call.
  case count(Int)
  case notAList
  case noMemory
}

extension SharedDictionary {
  private func liveList(_ hash: UInt64, _ key: UnsafeRawBufferPointer) -> (entry: EntryPointer, list: SharedList?)? {
    guard let entry = unsafe table.find(hash, key), unsafe !entry.isExpired(at: nowIfNeeded()) else { return nil }
    return unsafe (entry, entry.list)
  }

  /// Adds an element at one end, and the list with its first.
  func push(_ key: UnsafeRawBufferPointer, _ value: SharedValue, at end: SharedList.End) -> ListOutcome {
    let hash = unsafe Self.hash(key)
    return lock.withLock {
      removeExpired(atMost: Self.expiredPerChangeMax)
      let now = advanceTime()
      if let entry = unsafe table.find(hash, key) {
        if unsafe !entry.isExpired(at: nowIfNeeded()) {
          guard let list = unsafe entry.list else { return .notAList }
          unsafe entry.pointee.usedAt.store(now, ordering: .relaxed)
          return unsafe push(value, at: end, of: list, in: entry)
        }
        unsafe remove(entry)
      }
      return unsafe pushFirst(value, key, hash, now)
    }
  }

  private func push(
    _ value: SharedValue, at end: SharedList.End, of list: SharedList, in entry: EntryPointer
  ) -> ListOutcome {
    let cost = list.cost(of: value, at: end)
    guard unsafe value.content.count <= Self.contentBytesMax,
      unsafe makeRoom(for: cost, total: entry.bytes + cost, of: entry, mayEvict: true).fits
    else { return .noMemory }
    guard list.push(value, at: end) else { return .noMemory }
    usedBytes += cost
    return .count(list.count)
  }

  private func pushFirst(
    _ value: SharedValue, _ key: UnsafeRawBufferPointer, _ hash: UInt64, _ now: UInt64
  ) -> ListOutcome {
    guard let entry = unsafe EntryPointer.makeList(key: key, hash: hash, usedAt: now) else { return .noMemory }
    guard let list = unsafe entry.list else { preconditionFailure("a new list that is none") }
    let own = unsafe entry.bytes
    let total = own + list.cost(of: value, at: .back)
    guard unsafe value.content.count <= Self.contentBytesMax,
      unsafe makeRoom(for: total, total: total, of: nil, mayEvict: true).fits, list.push(value, at: .back)
    else {
      unsafe entry.releaseList()
      unsafe entry.free()
      return .noMemory
    }
    usedBytes += total
    unsafe enter(entry, now)
    return .count(1)
  }

  /// Takes an element from one end and hands it to `body`, during which its bytes are valid.
  func pop<Result>(
    _ key: UnsafeRawBufferPointer, _ end: SharedList.End, _ body: (SharedValue) -> Result
  ) -> Lookup<Result> {
    let hash = unsafe Self.hash(key)
    return lock.withLock {
      guard let (entry, list) = unsafe liveList(hash, key) else { return .missing }
      guard let list else { return .list }
      unsafe entry.pointee.usedAt.store(advanceTime(), ordering: .relaxed)
      let before = list.bytes
      let result = list.pop(end, body)
      usedBytes -= before - list.bytes
      if list.count == 0 { unsafe remove(entry) }
      return result.map { .found($0) } ?? .missing
    }
  }

  /// How many elements a list has; 0 without one.
  func listCount(_ key: UnsafeRawBufferPointer) -> ListOutcome {
    let hash = unsafe Self.hash(key)
    return lock.withLock {
      guard let (_, list) = unsafe liveList(hash, key) else { return .count(0) }
      return list.map { .count($0.count) } ?? .notAList
    }
  }

  /// Hands the elements from `first` to `last` to `body`, in order; places count from 1, negative ones from the end, as in
  /// string.sub. Their bytes are valid until the call returns.
  func eachElement(
    _ key: UnsafeRawBufferPointer, from first: Int64, to last: Int64, _ body: (SharedValue) -> Void
  ) -> ListOutcome {
    let hash = unsafe Self.hash(key)
    return lock.withLock {
      guard let (entry, list) = unsafe liveList(hash, key) else { return .count(0) }
      guard let list else { return .notAList }
      unsafe entry.pointee.usedAt.store(advanceTime(), ordering: .relaxed)
      let count = Int64(list.count)
      let from = first > 0 ? first : max(first == 0 ? 1 : count + 1 &+ first, 1)
      let to = last < 0 ? count + 1 + max(last, -count - 1) : min(last, count)
      guard from <= to else { return .count(0) }
      list.each(in: Int(from - 1)..<Int(to), body)
      return .count(Int(to - from + 1))
    }
  }
}
