// Everything a port owns, and how a handle's interest in epoll follows from what is submitted. It must never run the
// caller's code.

import Glibc
import SystemPackage

/// What one port consists of. It lives behind a pointer and belongs to one thread, so its fields cost neither
/// exclusivity checks nor reference counts.
@safe
struct PortState: ~Copyable {
  var table = HandleTable()
  var epoll: Epoll
  let wakeup: Wakeup
  var completions: CompletionList
  var readBuffer: ReadBuffer
  /// Handles that cannot be polled (regular files). Seldom any.
  var alwaysReady: [HandleKey] = []
  /// Which of them was read last.
  var nextAlwaysReady = 0
  /// Connections that may be accepted in one batch, and in what is left of this one.
  var acceptsPerBatchMax = PortLimits.acceptsMax
  var acceptsLeft = 0
  /// Listeners that rest because descriptors or memory ran out. Seldom any.
  var resting: [HandleKey] = []
  /// When the resting listeners go on at the latest.
  var restEnds: UInt64 = 0
  /// A descriptor was closed since the listeners began to rest.
  var restIsOver = false
  var relays = RelayTable()
  var pipes = PipePool()
  /// Sides of relays that have more to move than one batch allowed.
  var relaysGoingOn: [Int32] = []
  /// Bytes that relays have moved since the port was opened.
  var relayedBytes: UInt64 = 0
  /// CLOCK_MONOTONIC when the last wait ended.
  var now: UInt64

  static func open(readBufferBytes: Int, eventsMax: Int) throws(Errno) -> PortState {
    let epoll = try Epoll(eventsMax: eventsMax)
    do {
      let wakeup = try Wakeup()
      return PortState(epoll: epoll, wakeup: wakeup, readBufferBytes: readBufferBytes, eventsMax: eventsMax)
    } catch {
      epoll.close()
      throw error
    }
  }

  private init(epoll: consuming Epoll, wakeup: consuming Wakeup, readBufferBytes: Int, eventsMax: Int) {
    self.epoll = epoll
    self.wakeup = wakeup
    readBuffer = ReadBuffer(bytes: readBufferBytes)
    let completionsMax =
      PortLimits.packetsMax + PortLimits.fileReadsMax + PortLimits.acceptsMax + 1 + eventsMax
      * PortLimits.completionsPerEventMax
    completions = CompletionList(capacity: completionsMax)
    now = SystemCall.monotonicNanoseconds()
    do {
      try self.epoll.add(self.wakeup.descriptor.rawValue, for: [.readable, .edge], key: HandleKey.none.rawValue)
    } catch {
      preconditionFailure("a new epoll instance does not take its first descriptor: \(error)")
    }
  }

  /// Closes every handle that is still open, and the port's own descriptors.
  consuming func close() {
    for slot in 0..<table.count {
      guard let key = table.key(ofSlot: slot), let state = unsafe table.find(key) else { continue }
      unsafe endRelays(of: key, held: nil)
      unsafe SystemCall.close(state.pointee.descriptor)
    }
    pipes.close()
    readBuffer.deallocate()
    completions.deallocate()
    wakeup.close()
    epoll.close()
  }

  // MARK: handles

  /// Puts a descriptor into the table and, but for listeners, into epoll: reads are expected at once, and a connection
  /// that breaks is noticed even before the first read.
  mutating func associate(_ descriptor: CInt, as kind: HandleKind) throws(Errno) -> HandleKey {
    let key = table.insert(descriptor, kind: kind)
    if kind == .listener { return key }
    do {
      try epoll.add(descriptor, for: .readable, key: key.rawValue)
    } catch {
      guard kind == .file, error == .notPermitted else {
        table.remove(key)
        throw error
      }
      unsafe table.find(key)!.pointee.flags.insert(.alwaysReady)
      alwaysReady.append(key)
      return key
    }
    let state = unsafe table.find(key)!
    unsafe state.pointee.flags.insert(.registered)
    unsafe state.pointee.interest = .readable
    return key
  }

  /// Ends the key's generation and gives its descriptor back, out of epoll; nil when it had ended before.
  ///
  /// Taking it out is needed although close(2) would mostly do: epoll watches the open file, and a copy of the
  /// descriptor in another process would keep its events coming.
  mutating func detach(_ key: HandleKey) -> CInt? {
    guard let state = unsafe table.find(key) else { return nil }
    let descriptor = unsafe state.pointee.descriptor
    if unsafe state.pointee.flags.contains(.relayed) { unsafe endRelays(of: key, held: nil) }
    if unsafe state.pointee.flags.contains(.registered) { epoll.remove(descriptor) }
    if unsafe state.pointee.flags.contains(.alwaysReady) { alwaysReady.removeAll { $0 == key } }
    if unsafe state.pointee.flags.contains(.exhausted) { resting.removeAll { $0 == key } }
    table.remove(key)
    return descriptor
  }

  /// Makes epoll watch for exactly `interest`, with a system call only when that is a change. Fails only where the
  /// descriptor has to be added again.
  @inline(__always)
  mutating func watch(
    _ state: UnsafeMutablePointer<HandleState>, _ key: HandleKey, for interest: Epoll.Events
  ) throws(Errno) {
    if unsafe state.pointee.flags.contains(.registered) {
      if unsafe state.pointee.interest == interest { return }
      unsafe epoll.modify(state.pointee.descriptor, to: interest, key: key.rawValue)
    } else {
      if unsafe state.pointee.flags.contains(.alwaysReady) { return }
      try unsafe epoll.add(state.pointee.descriptor, for: interest, key: key.rawValue)
      unsafe state.pointee.flags.insert(.registered)
    }
    unsafe state.pointee.interest = interest
  }

  /// Takes the descriptor out of epoll, where an error or hang-up would be reported for ever, asked for or not.
  mutating func unwatch(_ state: UnsafeMutablePointer<HandleState>) {
    guard unsafe state.pointee.flags.contains(.registered) else { return }
    unsafe epoll.remove(state.pointee.descriptor)
    unsafe state.pointee.flags.remove(.registered)
    unsafe state.pointee.interest = []
  }

  // MARK: resting listeners

  /// Takes a listener out of polling until a descriptor may be free.
  mutating func rest(_ state: UnsafeMutablePointer<HandleState>, _ key: HandleKey) {
    unsafe unwatch(state)
    unsafe state.pointee.flags.insert(.exhausted)
    resting.append(key)
    restIsOver = false
    restEnds = now + PortLimits.exhaustedRestNanoseconds
  }

  /// Polls the resting listeners again when it is time.
  mutating func endRest() {
    guard !resting.isEmpty, restIsOver || now >= restEnds else { return }
    restIsOver = false
    let keys = resting
    resting.removeAll(keepingCapacity: true)
    for key in keys {
      guard let state = unsafe table.find(key) else { continue }
      unsafe state.pointee.flags.remove(.exhausted)
      // Where even this fails, memory is still short.
      do { try unsafe watch(state, key, for: [.readable, .exclusive]) } catch { unsafe rest(state, key) }
    }
  }
}

/// The completions of one batch: a flat array of fixed size.
@safe
struct CompletionList: ~Copyable {
  private let base: UnsafeMutablePointer<Completion>
  private let capacity: Int
  private(set) var count = 0
  /// Completions of kind `.write` among them.
  private(set) var writeCount = 0

  init(capacity: Int) {
    self.capacity = capacity
    unsafe base = .allocate(capacity: capacity)
  }

  consuming func deallocate() { unsafe base.deallocate() }

  /// How many more fit.
  var room: Int { capacity - count }

  @inline(__always)
  mutating func append(_ completion: Completion) {
    precondition(count < capacity, "a batch has more completions than its bounds allow")
    unsafe (base + count).initialize(to: completion)
    count += 1
    if completion.kind == .write { writeCount += 1 }
  }

  mutating func removeAll() {
    count = 0
    writeCount = 0
  }

  subscript(index: Int) -> Completion {
    precondition(index < count, "a completion beyond the batch")
    return unsafe base[index]
  }

  /// The batch, valid until the next change.
  var all: UnsafeBufferPointer<Completion> { unsafe UnsafeBufferPointer(start: base, count: count) }
}

/// The buffer that the reads of one batch go into, one after the other, so that many small messages share few cache
/// lines and connections hold no buffer of their own.
@safe
struct ReadBuffer: ~Copyable {
  private let base: UnsafeMutableRawPointer
  private let bytes: Int
  private var used = 0

  init(bytes: Int) {
    precondition(bytes >= PortLimits.readBytesMin, "a read buffer that no read fits into")
    self.bytes = bytes
    unsafe base = .allocate(byteCount: bytes, alignment: PortLimits.cacheLineBytes)
  }

  consuming func deallocate() { unsafe base.deallocate() }

  /// Whether another read may go into it.
  var hasRoom: Bool { bytes - used >= PortLimits.readBytesMin }

  /// Where the next read goes.
  var free: (start: UnsafeMutableRawPointer, bytes: Int) {
    unsafe (base + used, min(bytes - used, PortLimits.readBytesMax))
  }

  /// Keeps what a read put at the start of `free`.
  mutating func keep(_ count: Int) {
    let lines = (count + PortLimits.cacheLineBytes - 1) / PortLimits.cacheLineBytes
    used = min(used + lines * PortLimits.cacheLineBytes, bytes)
  }

  mutating func removeAll() { used = 0 }
}
