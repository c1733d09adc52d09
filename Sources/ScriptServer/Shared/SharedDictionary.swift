// One dictionary that all workers share: what reading does, and what the other files of the dictionary work on. Reading takes no
// lock: see EntryTable. Changing takes the one lock, under which each call is one step. Writing is in SharedDictionary+Writing, lists
// in +Lists, the cap on memory and expiry in +Memory. Must never know Lua.

import CompletionIO
import Glibc
import Synchronization

/// A dictionary from byte strings to values.
@safe
final class SharedDictionary: @unchecked Sendable {
  /// The clock in nanoseconds; read only where something can expire.
  let clock: @Sendable () -> UInt64
  let name: [UInt8]
  /// Readers find entries in it at any time; who holds the lock changes it.
  let table = EntryTable()

  // MARK: What a holder of the lock may change

  let lock = ThreadLock(spins: true)
  var uses = EntryHeap<UseRole>()
  var expiries = EntryHeap<ExpiryRole>()
  var limbo = Limbo()
  /// What the entries cost, in bytes.
  var usedBytes = 0 { didSet { watchUse() } }
  /// The most that they have cost since `whenFreed` was called.
  private var peakBytes = 0
  /// What they may cost.
  var capacityBytes: Int
  /// Entries removed for want of memory before their time, since the dictionary was made.
  var evictions: Int64 = 0
  /// The dictionary's time, which goes by two with every change: a use is marked with it, that by a reader with one more, so
  /// that reading what was written last counts as later. Between two changes readers store nothing twice.
  let time = Atomic<UInt64>(2)

  /// Called when much memory has become free, under the lock or on the thread of a flush.
  private let whenFreed: @Sendable () -> Void

  /// Less than this is not worth telling: the allocator's own free memory comes to as much.
  private static let muchBytes = 16 << 20
  /// What a dictionary may hold when nobody has said: room for some hundred thousand small entries, and harmless on any machine.
  static let defaultCapacityBytes = 64 << 20
  /// The least that may be asked for: a handful of entries.
  static let smallestCapacityBytes = 4096
  /// The longest value; a message is shorter by default.
  static let contentBytesMax = 512 << 20

  /// An empty dictionary. `clock` is in nanoseconds and never goes back.
  init(
    name: [UInt8], capacityBytes: Int, clock: @escaping @Sendable () -> UInt64 = { CompletionPort.clock() },
    whenFreed: @escaping @Sendable () -> Void = {}
  ) {
    self.whenFreed = whenFreed
    self.name = name
    self.capacityBytes = capacityBytes
    self.clock = clock
  }

  deinit {
    table.empty().free()
  }

  /// How a lookup ended.
  enum Lookup<Result> {
    case found(Result)
    case missing
    case list
  }

  // MARK: Reading, from any thread

  /// Hands the value and flags of a key to `body`, which runs where nothing may wait and copies what it wants to keep.
  @inline(__always)
  func read<Result>(_ key: UnsafeRawBufferPointer, _ body: (SharedValue, UInt32) -> Result) -> Lookup<Result> {
    let hash = unsafe Self.hash(key)
    if let result = ReaderRegistry.shared.reading({ unsafe lookUp(hash, key, body) }) { return result }
    return lock.withLock { unsafe lookUp(hash, key, body) }
  }

  @inline(__always)
  private func lookUp<Result>(
    _ hash: UInt64, _ key: UnsafeRawBufferPointer, _ body: (SharedValue, UInt32) -> Result
  ) -> Lookup<Result> {
    guard let entry = unsafe table.find(hash, key) else { return .missing }
    // The value before the deadline, as a writer changes them the other way round: a new value with the old deadline is never seen.
    let value = unsafe entry.value
    if unsafe isExpired(entry) { return .missing }
    unsafe touch(entry)
    guard let value else { return .list }
    return unsafe .found(body(value, entry.pointee.flags))
  }

  /// How long a key has still to live, in nanoseconds; 0 when it does not expire, nil when there is none.
  func timeToLive(_ key: UnsafeRawBufferPointer) -> UInt64? {
    let hash = unsafe Self.hash(key)
    if let result = ReaderRegistry.shared.reading({ unsafe remaining(hash, key) }) { return result }
    return lock.withLock { unsafe remaining(hash, key) }
  }

  private func remaining(_ hash: UInt64, _ key: UnsafeRawBufferPointer) -> UInt64? {
    guard let entry = unsafe table.find(hash, key) else { return nil }
    let deadline = unsafe entry.pointee.deadline.load(ordering: .acquiring)
    if deadline == 0 { return 0 }
    let now = clock()
    return deadline > now ? deadline - now : nil
  }

  @inline(__always)
  private func isExpired(_ entry: EntryPointer) -> Bool {
    let deadline = unsafe entry.pointee.deadline.load(ordering: .acquiring)
    return deadline != 0 && deadline <= clock()
  }

  /// Notes a use by a reader.
  @inline(__always)
  private func touch(_ entry: EntryPointer) {
    let now = time.load(ordering: .relaxed) &+ 1
    if unsafe entry.pointee.usedAt.load(ordering: .relaxed) != now {
      unsafe entry.pointee.usedAt.store(now, ordering: .relaxed)
    }
  }

  /// Seeded anew in each process, so that nobody outside can choose keys that meet.
  @inline(__always)
  static func hash(_ key: UnsafeRawBufferPointer) -> UInt64 {
    var hasher = Hasher()
    unsafe hasher.combine(bytes: key)
    return UInt64(bitPattern: Int64(hasher.finalize()))
  }

  // MARK: The whole

  /// How many keys there are.
  func count() -> Int {
    lock.withLock {
      removeExpired(atMost: Self.expiredPerCountMax)
      return table.count - (expiries.count == 0 ? 0 : expiries.count(upTo: clock()))
    }
  }

  /// Hands up to `limit` keys to `body`, in no order; 0 for all. Others change the dictionary between its parts: a key that was there all
  /// the while comes once, one that came or went meanwhile once or not at all.
  func keys(limit: Int, _ body: (UnsafeRawBufferPointer) -> Void) {
    var left = limit > 0 ? limit : Int.max
    for part in 0..<EntryTable.partCount where left > 0 {
      let before = left
      lock.withLock {
        let now = nowIfNeeded()
        unsafe table.each(ofPart: part) { entry in
          if unsafe left <= 0 || entry.isExpired(at: now) { return }
          unsafe body(entry.key)
          left -= 1
        }
      }
      if before - left >= Self.entriesBetweenPauses { pause() }
    }
  }

  /// Frees what readers had in their hands when it was removed, if they have let go of it.
  func collect() { lock.withLock { limbo.collect() } }

  /// Entries that a long call goes through between two pauses.
  static let entriesBetweenPauses = 1024

  /// Lets another thread have the lock that was just given back: it would else be taken again before that has woken up.
  func pause() { usleep(1) }

  /// Entries and bytes that a flush frees itself: some milliseconds' work.
  static let flushedAtOnceMax = 8192
  private static let flushedBytesAtOnceMax = 4 << 20

  /// Removes all keys at once. Many are freed by a thread of their own, so that neither this one nor those that wait for the lock stand
  /// still; until then they take memory beside what is stored next.
  func flush() {
    let (emptied, bytes, epoch): (EmptiedTable, Int, UInt64) = lock.withLock {
      let bytes = usedBytes
      uses.removeAll()
      expiries.removeAll()
      usedBytes = 0
      return (table.empty(), bytes, ReaderRegistry.shared.current)
    }
    if emptied.count > Self.flushedAtOnceMax || bytes > Self.flushedBytesAtOnceMax,
      Thread.startIfPossible(
        name: "flush",
        { [whenFreed] in
          ReaderRegistry.shared.waitForReaders(of: epoch)
          emptied.free()
          whenFreed()
        }) != nil
    {
      return
    }
    lock.withLock {
      limbo.add(emptied)
      limbo.collect()
    }
  }

  /// Tells when the entries cost less than half of what they did, and much less: not where some go and others come.
  private func watchUse() {
    if usedBytes >= peakBytes {
      peakBytes = usedBytes
    } else if usedBytes < peakBytes / 2, peakBytes - usedBytes > Self.muchBytes {
      peakBytes = usedBytes
      whenFreed()
    }
  }

  /// What the status shows.
  var figures: SharedDictionaryStatus {
    var status = SharedDictionaryStatus()
    status.name = String(decoding: name, as: UTF8.self)
    status.contentions = lock.contentions
    lock.withLock {
      status.items = table.count
      status.bytes = usedBytes
      status.capacityBytes = capacityBytes
      status.evictions = evictions
    }
    return status
  }
}
