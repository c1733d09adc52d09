// The records of relays: which two handles pass their bytes on to each other, and what each direction holds in between.
// It must never make a system call but for the memory and the pipes that it owns.

import CLinux
import Glibc

/// What one direction of a relay knows.
struct RelayFlags: OptionSet {
  let rawValue: UInt8
  /// The relay is submitted and not over.
  static let submitted = RelayFlags(rawValue: 1)
  /// The source may have something: epoll said so, and no read has found it empty since.
  static let canRead = RelayFlags(rawValue: 2)
  /// The target may take something, likewise.
  static let canWrite = RelayFlags(rawValue: 4)
  /// The source has ended; what is held still has to go out.
  static let sourceEnded = RelayFlags(rawValue: 8)
  /// The last read filled its buffer: more comes than one read takes.
  static let isBulk = RelayFlags(rawValue: 16)
  /// In the list of relays that go on in the next batch.
  static let goesOn = RelayFlags(rawValue: 32)
}

/// One handle of a pair, and the direction from it to the other one. An idle direction holds neither memory nor a pipe.
@safe
struct RelaySide {
  /// The handle that this side reads.
  var key = HandleKey.none
  var flags: RelayFlags = []
  /// Bytes that the other handle has taken.
  var bytes: UInt64 = 0
  /// When it last took some, by the port's clock.
  var lastMovedAt: UInt64 = 0
  /// Bytes that were read and not taken yet: malloc'ed, while there are any.
  var rest: UnsafeMutableRawPointer?
  var restStart = 0
  var restEnd = 0
  /// The kernel's pipe that bulk goes through, while there is bulk.
  var pipe = KernelPipe.none
  var pipeBytes = 0
  /// The next free pair, while this one is free.
  var nextFree: Int32 = -1

  /// Bytes that this direction holds.
  var heldBytes: Int { restEnd - restStart + pipeBytes }
}

/// The pairs of one port: sides 2n and 2n + 1 belong together.
@safe
struct RelayTable: ~Copyable {
  private var sides: UnsafeMutablePointer<RelaySide>
  private var capacity: Int
  private var count = 0
  private var firstFree: Int32 = -1

  /// Sides of a new table: most servers never relay.
  private static let initialCapacity = 8

  init() {
    capacity = Self.initialCapacity
    unsafe sides = .allocate(capacity: capacity)
  }

  deinit { unsafe sides.deallocate() }

  /// Enters a pair; the index of the first handle's side, whose other one is `index ^ 1`.
  mutating func insert(_ first: HandleKey, _ second: HandleKey) -> Int {
    let index: Int
    if firstFree >= 0 {
      index = Int(firstFree)
      firstFree = unsafe sides[index].nextFree
    } else {
      if count == capacity { grow() }
      index = count
      count += 2
    }
    unsafe (sides + index).initialize(to: RelaySide(key: first))
    unsafe (sides + index + 1).initialize(to: RelaySide(key: second))
    return index
  }

  /// Frees the pair that `index` is a side of.
  mutating func remove(_ index: Int) {
    let first = index & ~1
    unsafe sides[first] = RelaySide(nextFree: firstFree)
    unsafe sides[first + 1] = RelaySide()
    firstFree = Int32(first)
  }

  /// A side; valid until the next `insert`.
  @inline(__always)
  subscript(index: Int) -> UnsafeMutablePointer<RelaySide> { unsafe sides + index }

  private mutating func grow() {
    let larger = UnsafeMutablePointer<RelaySide>.allocate(capacity: capacity * 2)
    unsafe larger.moveInitialize(from: sides, count: count)
    unsafe sides.deallocate()
    unsafe sides = larger
    capacity *= 2
  }
}

/// The two ends of a pipe(2), through which splice(2) moves pages instead of copying bytes.
struct KernelPipe {
  var readEnd: CInt
  var writeEnd: CInt
  static let none = KernelPipe(readEnd: -1, writeEnd: -1)

  var exists: Bool { readEnd >= 0 }

  func close() {
    SystemCall.close(readEnd)
    SystemCall.close(writeEnd)
  }
}

/// The pipes of one port, made when bulk comes and kept for the next. Without one, a relay copies.
struct PipePool {
  /// Pipes that one port has at most: that many streams at full speed share one core anyway, and each pipe is two
  /// descriptors and up to 64 KiB that the kernel counts against the user's limit.
  static let pipesMax = 32
  private var idle: [KernelPipe] = []
  /// How many are open, in use or not.
  private(set) var count = 0
  /// How many may be.
  private var allowed = pipesMax
  /// splice(2) or pipe(2) was refused for good: by a container's filter, say.
  private var isRefused = false

  /// An empty pipe; nil when there is none to be had.
  mutating func take() -> KernelPipe? {
    if let pipe = idle.popLast() { return pipe }
    guard count < allowed, !isRefused else { return nil }
    var ends: (CInt, CInt) = (-1, -1)
    guard unsafe clinux_pipe(&ends.0, &ends.1) == 0 else { return nil }
    count += 1
    return KernelPipe(readEnd: ends.0, writeEnd: ends.1)
  }

  /// Takes an empty pipe back.
  mutating func give(_ pipe: KernelPipe) {
    if count > allowed { drop(pipe) } else { idle.append(pipe) }
  }

  /// Has no more than so many open, those in use aside, which are closed when they are given back.
  mutating func limit(to pipes: Int) {
    allowed = min(max(pipes, 0), Self.pipesMax)
    while count > allowed, let pipe = idle.popLast() { drop(pipe) }
  }

  /// Closes a pipe that is not empty, or of no use.
  mutating func drop(_ pipe: KernelPipe, isRefused: Bool = false) {
    pipe.close()
    count -= 1
    if isRefused { self.isRefused = true }
  }

  /// Closes the idle ones.
  mutating func close() {
    for pipe in idle { pipe.close() }
    idle = []
  }
}
