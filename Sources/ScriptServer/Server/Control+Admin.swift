// The admin socket on the control thread: its clients' bytes in and out, and what each request does.

import CompletionIO
import Glibc
import Synchronization

/// One admin client.
struct AdminClientState {
  var session = AdminSession()
  var output = SendQueue()
  var isWriting = false
  /// When it is cut off: until then its request has to be there, or its reply to be taken. Never while it waits for the reply.
  var until = UInt64.max
}

extension ControlThread {
  /// Clients that send their request or take their reply at once: beyond, others wait in the backlog, or descriptors kept free for a
  /// reload would be theirs. As many as one turn accepts may come on top.
  private static let adminTalkersMax = 8
  /// All clients at once, with those that wait for a reply, but without those that wait for the server's end.
  private static let adminClientsMax = 64
  /// For a request to come and a reply to be taken, which programs do at once.
  private static let adminPatienceNanoseconds: UInt64 = 10_000_000_000
  /// The same while others have to wait behind them.
  private static let adminHurryNanoseconds: UInt64 = 3_000_000_000

  func openAdmin() throws {
    let path = try AdminPath.serverPath(
      option: configuration.adminPath, processID: getpid(), surroundings: .current)
    let listener = try AdminListener.open(path: path)
    admin = listener
    // The port owns a duplicate: the listener's own is closed with its file.
    adminKey = try port.associate(Descriptor(adopting: dup(listener.descriptor)), as: .listener)
    _ = port.submit(.accept, on: adminKey)
  }

  // MARK: Clients

  func adminAccepted(_ descriptor: Int32) {
    guard AdminListener.isAllowed(peerOf: descriptor) else { return Descriptor(adopting: descriptor).close() }
    // What cannot be associated is closed by the port.
    guard let key = try? port.associate(Descriptor(adopting: descriptor), as: .socket) else { return }
    adminClients[key] = AdminClientState(until: now &+ Self.adminPatienceNanoseconds)
    _ = port.submit(.read, on: key)
    if adminIsCrowded {
      port.cancelRead(adminKey)
      adminRests = true
      for (key, client) in adminClients where client.until < .max {
        adminClients[key]?.until = min(client.until, now &+ Self.adminHurryNanoseconds)
      }
    }
    watchAdminClients()
  }

  private var adminIsCrowded: Bool {
    adminClients.values.count { $0.until < .max } >= Self.adminTalkersMax
      || adminClients.count - leaving.clients.count >= Self.adminClientsMax
  }

  /// Accepts clients again once there is room.
  private func acceptAdminAgain() {
    guard adminRests, !adminIsCrowded else { return }
    adminRests = false
    _ = port.submit(.accept, on: adminKey)
  }

  /// Has the clients looked at when the first of them has had its time.
  private func watchAdminClients() {
    _ = deadlines.cancel(adminDeadline)
    adminDeadline = .none
    guard let next = adminClients.values.map(\.until).min(), next < .max else { return }
    adminDeadline = deadlines.schedule(at: next, payload: ControlDeadline.adminPatience.rawValue)
  }

  /// Cuts off the clients that have had their time.
  func adminPatienceEnds() {
    for (key, client) in adminClients where client.until <= now { closeAdminClient(key) }
    watchAdminClients()
  }

  func adminCompleted(_ completion: Completion) {
    guard adminClients[completion.key] != nil else { return }
    switch completion.kind {
    case .read where completion.errorNumber == 0 && completion.count > 0: adminRead(completion)
    case .write where completion.errorNumber == 0:
      adminClients[completion.key]?.isWriting = false
      unsafe adminClients[completion.key]?.output.advance(completion.count, pool: adminPool)
      flushAdmin(completion.key)
    default: closeAdminClient(completion.key)
    }
  }

  private func adminRead(_ completion: Completion) {
    let key = completion.key
    guard let event = unsafe adminClients[key]?.session.receive(completion.bytes) else { return }
    switch event {
    case .incomplete, .ignored: break
    case .refused(let reply): send(key, reply)
    case .request(let request):
      adminClients[key]?.until = .max
      acceptAdminAgain()
      carryOut(request, key)
    }
    if adminClients[key] != nil { _ = port.submit(.read, on: key) }
  }

  /// Sends a request's reply; harmless when the client has gone.
  func answer(_ key: HandleKey, _ reply: AdminReply) {
    guard let bytes = adminClients[key]?.session.reply(reply) else { return }
    send(key, bytes)
  }

  private func send(_ key: HandleKey, _ bytes: [UInt8]) {
    unsafe bytes.withUnsafeBytes { source in
      guard let room = unsafe adminClients[key]?.output.reserve(source.count, pool: adminPool),
        let base = source.baseAddress
      else { return }
      unsafe room.copyMemory(from: base, byteCount: source.count)
    }
    adminClients[key]?.until = CompletionPort.clock() &+ Self.adminPatienceNanoseconds
    watchAdminClients()
    flushAdmin(key)
  }

  private func flushAdmin(_ key: HandleKey) {
    while let client = adminClients[key], !client.isWriting {
      if client.output.isEmpty { return client.session.isAnswered ? closeAdminClient(key) : () }
      var vector = unsafe iovec()
      _ = unsafe client.output.gather(into: &vector, limit: 1)
      switch unsafe withUnsafePointer(
        to: &vector, { unsafe port.submit(.write(UnsafeBufferPointer(start: $0, count: 1)), on: key) })
      {
      case .completed(let sent): unsafe adminClients[key]?.output.advance(sent, pool: adminPool)
      case .pending: adminClients[key]?.isWriting = true
      case .failed: return closeAdminClient(key)
      }
    }
  }

  func closeAdminClient(_ key: HandleKey) {
    port.close(key)
    unsafe adminClients[key]?.output.clear(pool: adminPool)
    adminClients[key] = nil
    acceptAdminAgain()
  }

  // MARK: Requests

  private func carryOut(_ request: AdminRequest, _ key: HandleKey) {
    switch request {
    case .ping:
      answer(key, AdminReply(status: 0, text: AdminPing(processID: getpid(), script: configuration.scriptPath).text))
    case .reload: reload(.files, client: key)
    case .rollback: reload(.previous, client: key)
    case .status(let json):
      let status = status()
      answer(key, AdminReply(status: 0, text: json ? StatusReport.json(status) : StatusReport.text(status)))
    case .connections: ask(key, kick: nil) { AdminReply(status: 0, text: ConnectionsReport.text($0)) }
    case .kick(let id):
      ask(key, kick: ConnectionID(rawValue: id)) { found in
        found.isEmpty
          ? AdminReply(status: 1, text: "no connection has the id \(id); `moonport connections` lists them")
          : AdminReply(status: 0, text: "closed connection \(id) of \(found[0].peer)")
      }
    case .broadcast(let text, let room): broadcast(key, text, room)
    case .drain(let seconds):
      leaving.clients.append(key)
      drain(seconds: seconds ?? configuration.drainSeconds)
    case .stop:
      leaving.clients.append(key)
      stop(reason: "stop")
    }
  }

  /// Asks all workers, and answers the client once all have spoken.
  private func ask(
    _ key: HandleKey, kick: ConnectionID?, _ reply: @escaping @Sendable ([ConnectionSummary]) -> AdminReply
  ) {
    let mailbox = mailbox
    let query = ConnectionQuery(kick: kick, workers: workers.count) { found in
      let reply = reply(found)
      mailbox.post(.perform { $0.answer(key, reply) })
    }
    for worker in workers { worker.mailbox.postUrgent(.connections(query)) }
  }

  private func broadcast(_ key: HandleKey, _ text: String, _ roomText: String?) {
    let room = roomText.map { RoomName(text: $0) }
    var text = text
    var message = GatheredBroadcast()
    text.withUTF8 { unsafe message.append(UnsafeRawBufferPointer($0), room: room, except: nil) }
    let packet = message.packet()
    let count =
      room.map { context.rooms.count($0) }
      ?? workers.reduce(0) { $0 + $1.counters.connections.load(ordering: .relaxed) }
    for worker in workers { _ = worker.mailbox.postDroppable(.broadcast(packet), bytes: text.utf8.count) }
    answer(key, AdminReply(status: 0, text: "sent to \(count) \(count == 1 ? "client" : "clients")"))
  }

  // MARK: Status

  private func status() -> ServerStatus {
    var status = ServerStatus()
    status.version = Version.text
    status.generation = context.generation.load(ordering: .relaxed)
    status.contentHash = reloads.current?.hash ?? ""
    status.scriptPath = configuration.scriptPath
    status.uptimeSeconds = Double(CompletionPort.clock() - startedAt) / 1e9
    status.processID = getpid()
    status.workers = workers.map { workerStatus($0) }
    status.listeners = listeners.values.sorted { $0.index < $1.index }.map { listenerStatus($0) }
    status.offload = context.offload?.currentStatus ?? OffloadStatus()
    status.dictionaries = context.dictionaries.figures
    status.roomContentions = context.rooms.contentions
    status.connections = status.workers.reduce(0) { $0 + $1.connections }
    status.messagesIn = status.workers.reduce(0) { $0 + $1.messagesIn }
    status.messagesOut = status.workers.reduce(0) { $0 + $1.messagesOut }
    status.bytesIn = workers.reduce(0) { $0 + Int64($1.counters.bytesIn.current) }
    status.bytesOut = workers.reduce(0) { $0 + Int64($1.counters.bytesOut.current) }
    status.errors = workers.reduce(0) { $0 + Int64($1.counters.errors.current) }
    status.refused = context.refused
    status.lastReload = reloads.last
    status.lastReload?.ageSeconds = Double(CompletionPort.clock() - reloads.lastAt) / 1e9
    status.watches = watcher != nil
    status.draining = leaving.isDraining
    return status
  }

  private func workerStatus(_ worker: Worker) -> WorkerStatus {
    var status = WorkerStatus()
    status.id = worker.index + 1
    status.connections = worker.counters.connections.load(ordering: .relaxed)
    status.messagesIn = Int64(worker.counters.messagesIn.current)
    status.messagesOut = Int64(worker.counters.messagesOut.current)
    status.memoryBytes = Int64(worker.counters.luaBytes.current)
    status.handlersOnOlderGenerations = worker.counters.olderTasks.current
    status.published = Int64(worker.counters.published.current)
    status.delivered = Int64(worker.counters.delivered.current)
    status.subscriptions = worker.counters.subscriptions.current
    status.dropped = Int64(worker.counters.dropped.current)
    status.mailboxContentions = worker.mailbox.contentions
    status.turns = Int64(worker.counters.turns.current)
    status.budgetErrors = Int64(worker.counters.budgetErrors.current)
    status.memoryErrors = Int64(worker.counters.memoryErrors.current)
    if let stuck = worker.watch.stuck {
      status.stuckAt = stuck.place
      status.stuckSeconds = Double(CompletionPort.clock() &- stuck.since) / 1e9
    }
    status.busySeconds = Double(worker.counters.busyNanoseconds.current) / 1e9
    status.longestTurnSeconds = Double(worker.counters.longestTurnNanoseconds.current) / 1e9
    return status
  }

  private func listenerStatus(_ listener: ServedListener) -> ListenerStatus {
    var status = ListenerStatus()
    status.address = "\(listener.bound)"
    status.codec = listener.settings.codecName
    status.open = listener.counters.open.load(ordering: .relaxed)
    status.accepted = Int64(listener.counters.accepted.load(ordering: .relaxed))
    status.refused = Int64(listener.counters.refused.load(ordering: .relaxed))
    return status
  }
}
