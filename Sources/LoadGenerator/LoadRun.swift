// A load from the first connect to the last answer: the loop, and when it ends. What is sent and what is made of the answers is in
// LoadRun+Traffic. Must never print or know how figures are shown.

import CLinux
import CompletionIO
import Glibc
import SystemPackage

/// One run of a load, on one thread. Made, run once, and gone.
@safe
package final class LoadRun {
  /// Connects that are under way at once: far fewer than any server's backlog.
  private static let connectingMax = 128
  /// Longer than a connect with two lost packets takes.
  private static let connectNanosecondsMax: UInt64 = 10_000_000_000
  /// After the last message was sent, how long answers are waited for.
  private static let drainNanosecondsMax: UInt64 = 2_000_000_000
  /// From one report of progress to the next.
  private static let progressNanoseconds: UInt64 = 1_000_000_000
  /// Descriptors besides the connections: standard streams, the port's, the signals'.
  private static let otherDescriptors = 16

  let plan: LoadPlan
  let ring: MessageRing
  let port: CompletionPort
  private let target: SocketAddress
  private var signals = HandleKey.none
  /// By the handle's slot: slot 0 is that of the signals.
  let connections: UnsafeMutablePointer<LoadConnection>
  var connectionCount = 0
  /// When each message in flight was sent or due: `plan.inFlight` places for each connection, used in turn.
  let times: UnsafeMutablePointer<UInt64>
  var openCount = 0
  var pacing: Pacing?
  /// Messages due until now, and those for which connections were told.
  var dueCount = 0
  var figures = LoadFigures()
  var isSending = false
  /// Nothing is waited for, and some socket takes more.
  var sendsFreely = false

  /// Prepares a checked plan's load on the server at `target`; the process's limit of open files is raised for it.
  package init(_ plan: LoadPlan, target: SocketAddress) throws(LoadError) {
    try plan.check()
    try Self.raiseDescriptorLimit(to: plan.connections + Self.otherDescriptors)
    self.plan = plan
    self.target = target
    ring = try MessageRing(plan)
    do { port = try CompletionPort() } catch { throw LoadError("cannot wait for sockets: \(error)") }
    unsafe connections = .allocate(capacity: plan.connections)
    unsafe times = .allocate(capacity: plan.connections * plan.inFlight)
    unsafe times.initialize(repeating: 0, count: plan.connections * plan.inFlight)
    clinux_wake_exactly()
  }

  deinit {
    unsafe connections.deinitialize(count: connectionCount)
    unsafe connections.deallocate()
    unsafe times.deallocate()
  }

  /// Connects, sends for the plan's time, waits for the last answers, and returns what came of it. SIGINT and SIGTERM end it early.
  ///
  /// - Parameter progress: called about once a second with the figures so far.
  package func run(progress: (LoadFigures) -> Void) throws(LoadError) -> LoadFigures {
    try watchSignals()
    try connectAll()
    if !figures.wasInterrupted { send(progress) }
    return figures
  }

  // MARK: connecting

  private func connectAll() throws(LoadError) {
    let deadline = CompletionPort.clock() + Self.connectNanosecondsMax
    while openCount < plan.connections, !figures.wasInterrupted {
      while connectionCount < plan.connections, connectionCount - openCount < Self.connectingMax { try startConnect() }
      if openCount == plan.connections { break }
      let batch = unsafe port.dequeue(timeoutNanoseconds: Self.remaining(until: deadline, now: port.now))
      for index in 0..<batch.count {
        let completion = unsafe batch[index]
        if completion.key == signals {
          figures.wasInterrupted = true
        } else if completion.kind == .connect {
          try finishConnect(completion)
        }
      }
      if port.now >= deadline { throw LoadError("only \(openCount) of \(plan.connections) connections within 10 s") }
    }
    figures.connections = openCount
  }

  private func startConnect() throws(LoadError) {
    let number = connectionCount
    let family = unsafe target.withSockAddr { address, _ in unsafe CInt(address.pointee.sa_family) }
    let descriptor = clinux_stream_socket(family)
    guard descriptor >= 0 else { throw failure(number, Errno(rawValue: errno)) }
    if !target.isUnix { try? SystemCall.setOption(descriptor, level: CInt(IPPROTO_TCP), name: TCP_NODELAY, to: 1) }
    let key: HandleKey
    do {
      key = try port.associate(Descriptor(adopting: descriptor), as: .socket)
    } catch {
      throw failure(number, error)
    }
    precondition(Int(key.slot) == number + 1, "slots are dense, and none is given up before the end")
    let position = number % ring.messageCount * ring.frameBytes
    let connection = LoadConnection(key: key, sendPosition: position, receivePosition: position)
    unsafe (connections + number).initialize(to: connection)
    connectionCount += 1
    switch port.submit(.connect(target), on: key) {
    case .pending: break
    case .completed: opened(number)
    case .failed(let error): throw failure(number, error)
    }
  }

  private func finishConnect(_ completion: Completion) throws(LoadError) {
    let number = Int(completion.key.slot) - 1
    if let error = completion.error { throw failure(number, error) }
    opened(number)
  }

  private func opened(_ number: Int) {
    unsafe connections[number].phase = .open
    openCount += 1
    _ = unsafe port.submit(.read, on: connections[number].key)
  }

  private func failure(_ number: Int, _ error: Errno) -> LoadError {
    LoadError("connection \(number + 1) of \(plan.connections): \(error)")
  }

  // MARK: sending

  private func send(_ progress: (LoadFigures) -> Void) {
    let start = CompletionPort.clock()
    let end = start + UInt64(plan.seconds * 1e9)
    let processorStart = Self.processorSeconds()
    var progressDue = start + Self.progressNanoseconds
    isSending = true
    begin(at: start)
    while openCount > 0, !figures.wasInterrupted {
      let now = port.now
      if now >= end { break }
      if now >= progressDue {
        figures.seconds = Double(now - start) / 1e9
        progress(figures)
        progressDue = now + Self.progressNanoseconds
      }
      turn(until: min(end, progressDue))
    }
    endSending(at: min(end, CompletionPort.clock()))
    figures.seconds = Double(CompletionPort.clock() - start) / 1e9
    figures.processorSeconds = Self.processorSeconds() - processorStart
    drain()
  }

  /// One batch of completions, and in an open loop what became due meanwhile.
  private func turn(until deadline: UInt64) {
    var wake = deadline
    if isSending, let pacing { wake = min(wake, pacing.dueTime(of: dueCount)) }
    if isSending, sendsFreely { wake = 0 }
    let batch = unsafe port.dequeue(timeoutNanoseconds: Self.remaining(until: wake, now: CompletionPort.clock()))
    for index in 0..<batch.count {
      let completion = unsafe batch[index]
      if completion.key == signals { figures.wasInterrupted = true } else { take(completion) }
    }
    guard isSending else { return }
    if pacing != nil { sendDue() } else if plan.expectation == .none { sendFreely() }
  }

  /// Sends what an open loop still owes and waits for the last answers, unless the user wants to leave.
  private func drain() {
    let deadline = CompletionPort.clock() + Self.drainNanosecondsMax
    while !figures.wasInterrupted, inFlightCount > 0 || overdueCount > 0, CompletionPort.clock() < deadline {
      turn(until: deadline)
    }
    // Whoever interrupts does not wait for answers, so none is missing.
    let missing = figures.wasInterrupted ? 0 : inFlightCount
    figures.unanswered = missing
    if missing > 0 { figures.note("\(missing) messages had no answer 2 s after the last was sent") }
    figures.overdue = overdueCount
  }

  private var inFlightCount: Int {
    guard plan.expectation == .echo else { return 0 }
    var count = 0
    for number in 0..<connectionCount { unsafe count += connections[number].inFlight }
    return count
  }

  // MARK: the process

  private func watchSignals() throws(LoadError) {
    var set = sigset_t()
    unsafe sigemptyset(&set)
    unsafe sigaddset(&set, SIGINT)
    unsafe sigaddset(&set, SIGTERM)
    unsafe sigprocmask(SIG_BLOCK, &set, nil)
    let descriptor = unsafe signalfd(-1, &set, CInt(SFD_NONBLOCK | SFD_CLOEXEC))
    guard descriptor >= 0 else { throw LoadError("cannot watch signals: \(Errno(rawValue: errno))") }
    do { signals = try port.associate(Descriptor(adopting: descriptor), as: .file) } catch {
      throw LoadError("cannot watch signals: \(error)")
    }
    _ = port.submit(.read, on: signals)
  }

  /// setrlimit(2), RLIMIT_NOFILE.
  private static func raiseDescriptorLimit(to count: Int) throws(LoadError) {
    var limit = rlimit()
    let files = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
    guard unsafe getrlimit(files, &limit) == 0, limit.rlim_cur < count else { return }
    limit.rlim_cur = rlim_t(count)
    if limit.rlim_max >= count, unsafe setrlimit(files, &limit) == 0 { return }
    throw LoadError("\(count) open files are needed and \(limit.rlim_max) allowed: raise `ulimit -n`")
  }

  private static func processorSeconds() -> Double {
    var time = timespec()
    unsafe clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
  }

  private static func remaining(until deadline: UInt64, now: UInt64) -> Int64 {
    deadline > now ? Int64(deadline - now) : 0
  }
}
