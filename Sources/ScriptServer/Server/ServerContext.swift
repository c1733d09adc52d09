// What all threads of a server share: constants, counters, and the ways to reach each other. Nothing here is changed without
// a lock or an atomic.

import CompletionIO
import Logging
import Synchronization

/// The shared part of a server.
final class ServerContext: @unchecked Sendable {
  let configuration: Configuration
  let log: Logger
  let rooms = RoomDirectory()
  let channels = ChannelDirectory()
  let dictionaries: SharedDirectory
  /// True for the state in which a script is only tried: it reaches nobody and prints nothing.
  let isScratch: Bool
  /// Gives up a trial that is stuck at that line of the script; nil but in a scratch context. Set once, before the trial's thread
  /// starts. On the watchdog's thread.
  var giveUp: (@Sendable (String) -> Void)?
  /// How many workers there are, or will be.
  let workerCount: Int
  /// Set once, before any worker's thread starts.
  private(set) var workers: [Worker] = []
  /// The background threads; nil in a scratch context. Set once, before any worker's thread starts.
  private(set) var offload: OffloadPool?
  /// Number of the live generation.
  let generation = Atomic<Int>(0)
  /// Client sockets of all workers, closing ones included.
  let clientDescriptors = Atomic<Int>(0)
  /// Sockets that scripts have opened, by `moonport.connect`.
  let outgoingDescriptors = Atomic<Int>(0)
  /// Descriptors of the pipes that relaying has open.
  private let pipeDescriptors = Atomic<Int>(0)
  /// So many of all kinds may be open at once.
  let descriptorsMax = Atomic<Int>(.max)
  /// Looks names up.
  let resolver = Resolver()
  /// Set while clients are not accepted for want of descriptors.
  let wantsDescriptors = Atomic<Bool>(false)
  private let lock = ThreadLock()
  private var refusals: [String: Int64] = [:]
  /// Set once, before any worker's thread starts; nil in a scratch context.
  private var control: Mailbox<ControlMessage>?

  init(
    _ configuration: Configuration, log: Logger, isScratch: Bool, dictionaries: SharedDirectory = SharedDirectory()
  ) {
    self.configuration = configuration
    self.log = log
    self.isScratch = isScratch
    self.dictionaries = dictionaries
    workerCount = configuration.workers
  }

  /// Enters the workers, the background threads and the control thread's mailbox, before any of their threads starts.
  func begin(workers: [Worker], control: Mailbox<ControlMessage>, offload: OffloadPool? = nil) {
    self.workers = workers
    self.offload = offload
    self.control = control
    dictionaries.whenFreed = { [weak self] in self?.memoryFreed() }
  }

  /// Lets go of the workers, which refer to the context, once their threads have ended.
  func end() {
    resolver.end()
    workers = []
  }

  /// A worker has closed a client's socket. `peerHash` is 0 unless its listener counts by address.
  func released(worker: Int, listener: UInt16, peerHash: UInt64) {
    clientDescriptors.subtract(1, ordering: .relaxed)
    if peerHash != 0 { control?.post(.released(listener: listener, peerHash: peerHash)) }
    if wantsDescriptors.load(ordering: .relaxed) { control?.post(.descriptorsFreed) }
  }

  /// A worker has closed a socket that a script had opened.
  func outgoingReleased() {
    outgoingDescriptors.subtract(1, ordering: .relaxed)
    if wantsDescriptors.load(ordering: .relaxed) { control?.post(.descriptorsFreed) }
  }

  /// A worker's relays have opened or closed so many pipes.
  func pipesChanged(by count: Int) {
    pipeDescriptors.add(2 * count, ordering: .relaxed)
    if count < 0, wantsDescriptors.load(ordering: .relaxed) { control?.post(.descriptorsFreed) }
  }

  /// How many pipes the relays of a worker that has `count` may have: none while clients wait for descriptors, else so many more that
  /// all workers' together take a quarter of what is to spare.
  func pipesAllowed(having count: Int) -> Int {
    if wantsDescriptors.load(ordering: .relaxed) { return 0 }
    return count + max(descriptorsMax.load(ordering: .relaxed) - openDescriptors, 0) / (8 * max(workerCount, 1))
  }

  /// Descriptors of clients' sockets, of scripts' and of what they are piped through.
  var openDescriptors: Int {
    clientDescriptors.load(ordering: .relaxed) + outgoingDescriptors.load(ordering: .relaxed)
      + pipeDescriptors.load(ordering: .relaxed)
  }

  /// Whether a script may open one more socket.
  var hasDescriptorToSpare: Bool { openDescriptors < descriptorsMax.load(ordering: .relaxed) }

  /// Counts a client that was turned away.
  func refused(_ reason: String) { lock.withLock { refusals[reason, default: 0] += 1 } }

  /// Clients turned away, by reason.
  var refused: [String: Int64] { lock.withLock { refusals } }

  /// A handler has required a module that nobody had asked for before.
  func snapshotHasGrown() { control?.post(.perform { $0.watchGrownSnapshot() }) }

  /// A worker has been stuck for longer than the configuration allows, at that line of the script if it is known.
  func stuckPastLimit(at place: String, _ details: Logger.Metadata) {
    if let giveUp { return giveUp(place) }
    control?.post(.perform { $0.endStuck(details) })
  }

  /// Much memory that workers' threads had taken was freed beside them.
  func memoryFreed() {
    control?.post(.perform { control in for worker in control.workers { worker.mailbox.post(.memoryFreed) } })
  }

  /// A worker that ends has let go of so many messages, since it did not get to them in time.
  func dropped(messages count: Int) { control?.post(.perform { $0.messagesDropped(count) }) }

  /// A worker's thread is about to end.
  func workerEnded(_ index: Int) { control?.post(.workerEnded(index)) }
}

/// What other threads tell the control thread.
enum ControlMessage: Sendable {
  /// A client of a listener that counts by address is gone.
  case released(listener: UInt16, peerHash: UInt64)
  case descriptorsFreed
  case workerEnded(Int)
  /// A signal came.
  case signal(Int32)
  /// Work that another thread wants done on the control thread.
  case perform(@Sendable (ControlThread) -> Void)
}

/// A question to all workers about their connections.
final class ConnectionQuery: Sendable {
  /// The connection to close, if that is the question.
  let kick: ConnectionID?
  private let lock = ThreadLock()
  nonisolated(unsafe) private var missing: Int
  nonisolated(unsafe) private var found: [ConnectionSummary] = []
  private let done: @Sendable ([ConnectionSummary]) -> Void

  /// `done` is called once, on the thread of the worker that answers last.
  init(kick: ConnectionID?, workers: Int, done: @escaping @Sendable ([ConnectionSummary]) -> Void) {
    self.kick = kick
    self.done = done
    unsafe missing = workers
  }

  /// One worker's answer.
  func answer(_ connections: [ConnectionSummary]) {
    let all: [ConnectionSummary]? = lock.withLock {
      unsafe found += connections
      unsafe missing -= 1
      return unsafe missing == 0 ? found : nil
    }
    if let all { done(all.sorted { $0.id < $1.id }) }
  }
}
