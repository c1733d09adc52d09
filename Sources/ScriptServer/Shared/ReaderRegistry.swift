// Reading without a lock, and freeing what readers may still look at: each thread says in a word of its own that it reads and since
// which epoch; what a writer takes out of a table is kept until every thread that reads has begun after that. This is
// epoch-based reclamation (Fraser, "Practical lock-freedom", 2004). Must never know what is read.

import CompletionIO
import Glibc
import Synchronization

/// The threads that read shared dictionaries. One for the whole program.
@safe
final class ReaderRegistry: @unchecked Sendable {
  static let shared = ReaderRegistry()

  /// Threads with a place of their own: many times the workers and background threads of a server. A thread without one reads
  /// under the dictionary's lock.
  private static let placesMax = 1024

  /// One thread's word, alone in its cache line.
  private struct Place: ~Copyable {
    /// The epoch in which the thread began to read; 0 while it does not.
    let readsSince = Atomic<UInt64>(0)
    private let rest: (UInt64, UInt64, UInt64, UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0, 0, 0, 0)
  }

  private let epoch = Atomic<UInt64>(1)
  private let places: UnsafeMutablePointer<Place>
  /// Places that were ever given out: those before this one are looked at.
  private let placesUsed = Atomic<Int>(0)
  private let lock = ThreadLock()
  /// Places of threads that have ended.
  private var free: [Int] = []
  /// Finds a thread's place.
  private let threadKey: pthread_key_t

  private init() {
    unsafe places = .allocate(capacity: Self.placesMax)
    var key = pthread_key_t()
    let result = unsafe pthread_key_create(&key) { place in
      if let place = unsafe place { unsafe ReaderRegistry.shared.threadEnded(place) }
    }
    precondition(result == 0, "pthread_key_create: error \(result)")
    threadKey = key
  }

  // MARK: Readers

  /// Runs `body`, in which what a table leads to stays where it is; nil, without running it, for a thread that has no place. Must not
  /// be called inside itself.
  @inline(__always)
  func reading<Result>(_ body: () -> Result) -> Result? {
    guard let place = unsafe place() else { return nil }
    // An epoch that is over already does no harm: more is kept.
    unsafe place.pointee.readsSince.store(epoch.load(ordering: .relaxed), ordering: .sequentiallyConsistent)
    let result = body()
    unsafe place.pointee.readsSince.store(0, ordering: .releasing)
    return result
  }

  @inline(__always)
  private func place() -> UnsafeMutablePointer<Place>? {
    if let known = unsafe pthread_getspecific(threadKey) {
      return unsafe known.assumingMemoryBound(to: Place.self)
    }
    return unsafe register()
  }

  @inline(never)
  private func register() -> UnsafeMutablePointer<Place>? {
    let index: Int? = lock.withLock {
      if let index = free.popLast() { return index }
      let index = placesUsed.load(ordering: .relaxed)
      guard index < Self.placesMax else { return nil }
      unsafe (places + index).initialize(to: Place())
      placesUsed.store(index + 1, ordering: .sequentiallyConsistent)
      return index
    }
    guard let index else { return nil }
    let place = unsafe places + index
    unsafe pthread_setspecific(threadKey, place)
    return unsafe place
  }

  private func threadEnded(_ place: UnsafeMutableRawPointer) {
    let index = unsafe place.assumingMemoryBound(to: Place.self) - places
    lock.withLock { free.append(index) }
  }

  // MARK: Writers

  /// The epoch to mark with what has just been taken out of a table.
  var current: UInt64 { epoch.load(ordering: .sequentiallyConsistent) }

  /// Begins a new epoch. What was marked with one before the returned epoch is out of every reader's reach.
  func advance() -> UInt64 {
    var oldest = epoch.wrappingAdd(1, ordering: .sequentiallyConsistent).newValue
    for index in 0..<placesUsed.load(ordering: .sequentiallyConsistent) {
      let since = unsafe (places + index).pointee.readsSince.load(ordering: .sequentiallyConsistent)
      if since != 0 { oldest = min(oldest, since) }
    }
    return oldest
  }

  /// Waits until what was marked with `epoch` is out of every reader's reach: some microseconds, or as long as the system keeps a
  /// thread that reads from running.
  func waitForReaders(of epoch: UInt64) { while advance() <= epoch { usleep(1000) } }
}

/// What one writer has taken out of its tables and cannot free yet. Belongs to the writer.
@safe
struct Limbo: ~Copyable {
  @safe
  private enum Item {
    case entry(EntryPointer)
    case block(UnsafeMutableRawPointer)
    case table(EmptiedTable)
  }

  /// So much waits at most before the next look at the readers: enough that a look, which costs some loads for each thread, is
  /// rare, and little beside a dictionary's cap.
  private static let itemsMax = 64
  private static let bytesMax = 256 << 10

  private var items: [(epoch: UInt64, item: Item)] = []
  private var bytes = 0

  deinit { for index in items.indices { Self.free(items[index].item) } }

  /// Keeps an entry until no reader can have it.
  mutating func add(_ entry: EntryPointer) {
    let size = unsafe entry.pointee.contentCount
    unsafe entry.releaseList()
    unsafe append(.entry(entry), bytes: size)
  }

  /// Keeps a block of malloc(3) until no reader can have it.
  mutating func add(_ block: UnsafeMutableRawPointer?) {
    if let block = unsafe block { unsafe append(.block(block), bytes: 0) }
  }

  /// Keeps all of a table until no reader can have it.
  mutating func add(_ table: EmptiedTable) { append(.table(table), bytes: 0) }

  private mutating func append(_ item: Item, bytes size: Int) {
    items.append((ReaderRegistry.shared.current, item))
    bytes += size
    if items.count.isMultiple(of: Self.itemsMax) || bytes > Self.bytesMax { collect() }
  }

  /// Frees what it can.
  mutating func collect() {
    let oldest = ReaderRegistry.shared.advance()
    let kept = items.firstIndex { $0.epoch >= oldest } ?? items.count
    for index in 0..<kept { Self.free(items[index].item) }
    items.removeFirst(kept)
    // Counted anew, whatever had to stay: else every addition would look again while a reader lingers.
    bytes = 0
  }

  private static func free(_ item: Item) {
    switch item {
    case .entry(let entry): unsafe entry.free()
    case .block(let block): unsafe Glibc.free(block)
    case .table(let table): table.free()
    }
  }
}
