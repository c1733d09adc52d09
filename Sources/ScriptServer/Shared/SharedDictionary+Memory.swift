// What a dictionary may hold: making room under the cap, and removing what has expired. All of it under the lock.

import CompletionIO
import Synchronization

extension SharedDictionary {
  /// Expired entries that a change of the dictionary removes besides its own work: two for the one that it may add.
  static let expiredPerChangeMax = 2
  /// Expired entries that counting removes, and `flush_expired` at once: some hundred microseconds of work.
  static let expiredPerCountMax = 1024
  /// Entries that are brought up to date while the least recently used is looked for. Readers only leave a mark on what they
  /// used, so those at the front of the queue may have been used since. With more of them than this in a row the choice is the
  /// least recently used of these.
  private static let refreshedPerEvictionMax = 16
  /// Entries that one change removes while the dictionary is over a cap that was lowered.
  private static let evictionsOverCapMax = 64

  /// The dictionary's next time.
  func advanceTime() -> UInt64 {
    let now = time.load(ordering: .relaxed) &+ 2
    time.store(now, ordering: .relaxed)
    return now
  }

  /// The clock, or 0 when nothing can expire.
  func nowIfNeeded() -> UInt64 { expiries.count == 0 ? 0 : clock() }

  /// Sees to it that `added` more bytes may be held by an entry that then has `total`. `grown` is the entry that they are for, when
  /// it is there already: it stays.
  ///
  /// Returns whether they fit, and whether keys had to go that had not expired. Nothing goes for what cannot fit anyway.
  func makeRoom(
    for added: Int, total: Int, of grown: EntryPointer?, mayEvict: Bool
  ) -> (fits: Bool, forcible: Bool) {
    if usedBytes + added <= capacityBytes || added <= 0 { return (true, false) }
    if total > capacityBytes { return (false, false) }
    guard let grown = unsafe grown else { return makeRoom(for: added, mayEvict: mayEvict) }
    // Out of both queues meanwhile, so that nothing below finds it.
    unsafe uses.remove(grown)
    unsafe expiries.remove(grown)
    let result = makeRoom(for: added, mayEvict: mayEvict)
    unsafe uses.set(grown, key: grown.pointee.usedAt.load(ordering: .relaxed))
    let deadline = unsafe grown.pointee.deadline.load(ordering: .relaxed)
    if deadline != 0 { unsafe expiries.set(grown, key: deadline) }
    return result
  }

  private func makeRoom(for added: Int, mayEvict: Bool) -> (fits: Bool, forcible: Bool) {
    removeExpired(atMost: Int.max, until: capacityBytes - added)
    if usedBytes + added <= capacityBytes { return (true, false) }
    if !mayEvict { return (false, false) }
    let before = usedBytes
    var evicted = 0
    while usedBytes + added > capacityBytes, let victim = unsafe leastRecentlyUsed() {
      if evicted >= Self.evictionsOverCapMax, before - usedBytes >= added { break }
      unsafe remove(victim)
      evicted += 1
    }
    evictions += Int64(evicted)
    return (true, evicted > 0)
  }

  /// The entry whose last use is the longest ago, as far as a bounded search tells; nil when there is none.
  private func leastRecentlyUsed() -> EntryPointer? {
    for _ in 0..<Self.refreshedPerEvictionMax {
      guard let oldest = uses.first else { return nil }
      let usedAt = unsafe oldest.entry.pointee.usedAt.load(ordering: .relaxed)
      if usedAt == oldest.key { return unsafe oldest.entry }
      unsafe uses.set(oldest.entry, key: usedAt)
    }
    return unsafe uses.first?.entry
  }

  /// Takes an entry out of everything.
  func remove(_ entry: EntryPointer) {
    usedBytes -= unsafe entry.bytes
    unsafe table.remove(entry)
    unsafe uses.remove(entry)
    unsafe expiries.remove(entry)
    unsafe limbo.add(entry)
  }

  /// Removes up to `limit` entries that have expired, as long as more than `bytes` are held. Returns how many.
  @discardableResult
  func removeExpired(atMost limit: Int, until bytes: Int = -1) -> Int {
    guard expiries.count > 0 else { return 0 }
    let now = clock()
    var removed = 0
    while removed < limit, usedBytes > bytes, let first = expiries.first, first.key <= now {
      unsafe remove(first.entry)
      removed += 1
    }
    return removed
  }

  /// Removes up to `limit` entries that have expired, 0 for all. Returns how many. Others change the dictionary between.
  func flushExpired(limit: Int) -> Int {
    let most = limit > 0 ? limit : Int.max
    var removed = 0
    while removed < most {
      let some = min(most - removed, Self.expiredPerCountMax)
      let now = lock.withLock { removeExpired(atMost: some) }
      removed += now
      if now < some { break }
      pause()
    }
    return removed
  }

  /// Changes the cap. What is too much goes with later changes.
  func setCapacity(_ bytes: Int) { lock.withLock { capacityBytes = bytes } }

  /// The cap, in bytes.
  var capacity: Int { lock.withLock { capacityBytes } }

  /// What is left of it.
  var freeBytes: Int { lock.withLock { max(capacityBytes - usedBytes, 0) } }
}
