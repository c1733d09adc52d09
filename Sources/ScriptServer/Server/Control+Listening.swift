// Listening, accepting, and placing: which addresses are served, who is let in, and which worker gets the client.

import CompletionIO
import Glibc
import Logging
import Synchronization

/// One address that is served.
struct ServedListener {
  let index: UInt16
  /// As the script or the command line names it.
  let declared: String
  let bound: SocketAddress
  let key: HandleKey
  let counters: ListenerCounters
  var settings: ListenerSettings
  /// When clients of each address came, where the script limits that.
  var rates: AddressRates?
  var isAccepting = false
}

/// What `bind` has done for a plan, to be made good or undone.
struct BoundPlan: Sendable {
  /// The index of each listener of the plan, in its order.
  var indexes: [UInt16] = []
  /// Those that were opened for it and do not accept yet.
  var opened: [HandleKey] = []
}

extension ControlThread {
  /// Descriptors kept free for what is not a client: admin clients, files of a reload, the log, what scripts open.
  private static let reservedDescriptors = 16
  /// After how long a silence a client is asked whether it is still there, so that one whose machine or network is gone does
  /// not keep its slot for ever: often enough for that, too seldom to cost anything.
  private static let keepAliveSeconds: Int32 = 300
  /// The first port that every user may listen on, where the system has not moved it. ip(7), ip_unprivileged_port_start
  private static let openPortsFrom: UInt16 = 1024
  /// The most addresses that one server listens on over its life; their indexes are never given to another.
  private static let listenersMax = 4096

  // MARK: Binding

  /// Opens the plan's addresses that are not open yet; throws, with everything undone, the first that cannot be had.
  func bind(_ plan: [ListenerSettings]) throws(ServerFailure) -> BoundPlan {
    if leaving.isLeaving { throw .script("the server is ending") }
    var bound = BoundPlan()
    do throws(ServerFailure) {
      var picked: [String: Int] = [:]
      for settings in plan {
        // The system picks a port for each listener that asks it to, so the same text twice is no conflict.
        picked[settings.address, default: 0] += settings.asksForAnyPort ? 1 : 0
        let index = try index(of: settings, occurrence: picked[settings.address] ?? 0)
        if bound.indexes.contains(index) {
          throw .script("\(settings.place): the script listens on \(settings.address) twice")
        }
        bound.indexes.append(index)
        if !listeners.values.contains(where: { $0.index == index }) { bound.opened.append(try open(settings, index)) }
      }
    } catch {
      unbind(bound)
      throw error
    }
    return bound
  }

  /// Closes what was opened for a plan that did not become live.
  func unbind(_ bound: BoundPlan) { for key in bound.opened { closeListener(key) } }

  /// The index of an address for good; `occurrence` counts from 1 where the same text stands for several, else it is 0.
  private func index(of settings: ListenerSettings, occurrence: Int) throws(ServerFailure) -> UInt16 {
    let name = occurrence > 1 ? "\(settings.address) #\(occurrence)" : settings.address
    if let index = listenerIndexes[name] { return index }
    guard listenerIndexes.count < Self.listenersMax else {
      throw .script("\(settings.place): this server has listened on \(Self.listenersMax) addresses; restart it")
    }
    let index = UInt16(listenerIndexes.count + 1)
    listenerIndexes[name] = index
    listenerCounters[index] = ListenerCounters()
    return index
  }

  private func open(_ settings: ListenerSettings, _ index: UInt16) throws(ServerFailure) -> HandleKey {
    let place = settings.place.isEmpty ? "--listen" : settings.place
    let address: SocketAddress
    do throws(SocketAddressError) {
      address = try SocketAddress(parsing: settings.address)
    } catch {
      throw .script("\(place): \(error)")
    }
    do {
      let listener = try listener(at: address, backlog: settings.backlog)
      let bound = listener.address
      let key = try port.associate(listener.take(), as: .listener)
      listeners[key] = ServedListener(
        index: index, declared: settings.address, bound: bound, key: key, counters: listenerCounters[index]!,
        settings: settings)
      return key
    } catch {
      var problem = "\(place): cannot listen on \(settings.address): \(error)"
      if let user, user.isFinal, (1..<Self.openPortsFrom).contains(address.port ?? 0) {
        problem += "; the server has become \(user.name) (--user): an address that only root may have needs a restart"
      }
      throw .script(problem)
    }
  }

  /// Opens one address: as root, where `--user` began as that and still may, but for a socket file, which is to be the user's own.
  private func listener(at address: SocketAddress, backlog: Int32) throws -> Listener {
    guard let user, !address.isUnix else {
      return try Listener.open(address, backlog: backlog, keepAliveSeconds: Self.keepAliveSeconds)
    }
    return try user.asRoot {
      try Listener.open(address, backlog: backlog, keepAliveSeconds: Self.keepAliveSeconds)
    }
  }

  /// A reload has succeeded: new listeners accept, those that the script no longer has are closed.
  func activate(_ bound: BoundPlan, _ plan: [ListenerSettings]) {
    for (key, listener) in listeners where !bound.indexes.contains(listener.index) { closeListener(key) }
    for (offset, index) in bound.indexes.enumerated() {
      guard let key = listeners.first(where: { $0.value.index == index })?.key else { continue }
      listeners[key]?.settings = plan[offset]
      if plan[offset].connectionRate == nil {
        listeners[key]?.rates = nil
      } else if listeners[key]?.rates == nil {
        listeners[key]?.rates = AddressRates()
      }
      startAccepting(key)
    }
    computeDescriptorLimit()
  }

  private func startAccepting(_ key: HandleKey) {
    guard listeners[key]?.isAccepting == false, !leaving.isDraining else { return }
    listeners[key]?.isAccepting = true
    _ = port.submit(.accept, on: key)
  }

  private func closeListener(_ key: HandleKey) {
    guard let listener = listeners.removeValue(forKey: key) else { return }
    port.close(key)
    listener.bound.removeStaleSocketFile()
  }

  func closeListeners() { for key in Array(listeners.keys) { closeListener(key) } }

  // MARK: Accepting

  func accepted(_ completion: Completion) {
    if completion.errorNumber != 0 {
      log.warning(
        "a listener rests for a second: \(completion.error.map { "\($0)" } ?? "")",
        metadata: ["listener": "\(listeners[completion.key]?.bound.description ?? "admin")"])
      return
    }
    let descriptor = Int32(completion.count)
    if completion.key == adminKey { return adminAccepted(descriptor) }
    guard let listener = listeners[completion.key] else { return Descriptor(adopting: descriptor).close() }
    admit(descriptor, listener)
  }

  private func admit(_ descriptor: Int32, _ listener: ServedListener) {
    let counters = listener.counters
    counters.accepted.add(1, ordering: .relaxed)
    let settings = listener.settings
    let open = counters.open.load(ordering: .relaxed)
    if settings.connectionsMax > 0, open >= settings.connectionsMax {
      return turnAway(descriptor, listener, "max_connections")
    }
    let serverMax = configuration.connectionsMax
    if serverMax > 0, context.clientDescriptors.load(ordering: .relaxed) >= serverMax {
      return turnAway(descriptor, listener, "--max-connections")
    }
    var peerHash: UInt64 = 0
    if settings.connectionsPerAddressMax > 0 || settings.connectionRate != nil {
      peerHash = Self.addressHash(of: descriptor)
    }
    if let rate = settings.connectionRate, listener.rates?.take(peerHash, rate, now: now) == false {
      return turnAway(descriptor, listener, "connection_rate")
    }
    if settings.connectionsPerAddressMax == 0 {
      peerHash = 0
    } else {
      let count = clientsPerAddress[listener.index]?[peerHash] ?? 0
      if count >= settings.connectionsPerAddressMax { return turnAway(descriptor, listener, "max_connections_per_ip") }
      clientsPerAddress[listener.index, default: [:]][peerHash] = count + 1
    }
    counters.open.add(1, ordering: .relaxed)
    place(AcceptedClient(descriptor: descriptor, listener: listener.index, peerHash: peerHash))
  }

  /// A client's address as one number, never 0, that nobody outside can foresee. The last 64 bits of an IPv6 address do not
  /// count: a single host has all of them. Clients of Unix sockets, and those that have reset already, share one.
  private static func addressHash(of descriptor: Int32) -> UInt64 {
    var hasher = Hasher()
    (try? SocketAddress.peer(of: descriptor))?.hashHost(into: &hasher)
    return UInt64(bitPattern: Int64(hasher.finalize())) | 1
  }

  /// Over a cap: accepted and closed at once, counted.
  private func turnAway(_ descriptor: Int32, _ listener: ServedListener, _ reason: String) {
    Descriptor(adopting: descriptor).close()
    listener.counters.refused.add(1, ordering: .relaxed)
    context.refused(reason)
  }

  /// Hands a client to the worker with the fewest connections; among equals they take turns.
  private func place(_ client: AcceptedClient) {
    var best = workers[nextWorker % workers.count]
    for offset in 1..<max(workers.count, 1) {
      let worker = workers[(nextWorker + offset) % workers.count]
      if worker.counters.connections.load(ordering: .relaxed) < best.counters.connections.load(ordering: .relaxed) {
        best = worker
      }
    }
    nextWorker = (best.index + 1) % workers.count
    best.counters.connections.add(1, ordering: .relaxed)
    context.clientDescriptors.add(1, ordering: .relaxed)
    if !best.mailbox.post(.accepted(client)) { Descriptor(adopting: client.descriptor).close() }
    pauseWhenFull()
  }

  /// A client of a listener that counts by address has gone.
  func clientGone(listener index: UInt16, peerHash: UInt64) {
    let count = clientsPerAddress[index]?[peerHash] ?? 0
    clientsPerAddress[index]?[peerHash] = count > 1 ? count - 1 : nil
  }

  // MARK: Descriptors

  /// How many clients the descriptor limit leaves room for.
  private func computeDescriptorLimit() {
    var limit = rlimit()
    guard unsafe getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return }
    let used = OpenDescriptors.count() - context.openDescriptors
    let allowed = Int(clamping: limit.rlim_cur)
    clientDescriptorsMax = max(allowed - used - Self.reservedDescriptors, 1)
    context.descriptorsMax.store(clientDescriptorsMax, ordering: .relaxed)
  }

  /// Has the port accept no more clients at once than there are descriptors for.
  func limitAccepts() {
    port.limitAccepts(perBatch: clientDescriptorsMax - context.openDescriptors)
  }

  /// Stops accepting while there is no descriptor to spare: waiting clients stay in the backlog, and the admin socket, reloads
  /// and scripts still find descriptors.
  private func pauseWhenFull() {
    guard context.openDescriptors >= clientDescriptorsMax else { return }
    log.warning("out of descriptors: clients wait until others leave", metadata: ["clients": "\(clientDescriptorsMax)"])
    context.wantsDescriptors.store(true, ordering: .relaxed)
    for key in listeners.keys where listeners[key]?.isAccepting == true {
      listeners[key]?.isAccepting = false
      port.cancelRead(key)
    }
    // One that left between the look and the mark posted nothing.
    if context.openDescriptors < clientDescriptorsMax { resumeAccepting() }
  }

  func resumeAccepting() {
    guard context.wantsDescriptors.load(ordering: .relaxed),
      context.openDescriptors < clientDescriptorsMax
    else { return }
    context.wantsDescriptors.store(false, ordering: .relaxed)
    for key in Array(listeners.keys) { startAccepting(key) }
  }
}

/// The process's open descriptors.
private enum OpenDescriptors {
  /// How many there are. proc(5), /proc/self/fd
  static func count() -> Int {
    guard let folder = unsafe opendir("/proc/self/fd") else { return 32 }
    defer { unsafe closedir(folder) }
    var count = -3  // ".", ".." and the folder's own
    while unsafe readdir(folder) != nil { count += 1 }
    return max(count, 0)
  }
}
