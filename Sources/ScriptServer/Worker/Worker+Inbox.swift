// What other threads ask of this worker: taking over an accepted client, delivering to its connections, answering questions.

import CompletionIO
import Logging
import LuaRuntime
import Synchronization

extension Worker {
  /// Messages of the mailbox handled in one turn: other workers that send without end leave this one's clients a chance between.
  private static let inboxPerTurnMax = 4096
  /// Messages that the inbox keeps room for.
  private static let inboxKeptMax = 4 * inboxPerTurnMax
  /// Bytes that come at once and are given back to the system after that: many times what is usual.
  private static let muchBytes = 1 << 20

  /// Handles what came by mailbox, in order. What is still to be handled stays in the inbox meanwhile: a reload's
  /// switch looks there for what the old code has sent, and a worker that ends for what it must let go.
  func handleInbox() {
    var share = TurnShare(atMost: Self.inboxPerTurnMax)
    while !share.isUsedUp, !isEnding {
      if delivery != nil {
        goOnDelivering(&share)
        continue
      }
      guard hasMessage() else { break }
      let message = inbox[inboxNext]
      inboxNext += 1
      handle(message)
      settle()
      share.spend(message.count)
    }
    if hasUrgentMail { handleUrgent() }
  }

  /// Handles what must not wait until all that came before is handled.
  private func handleUrgent() {
    hasUrgentMail = false
    for message in mailbox.takeUrgent() {
      if isEnding {
        abandon(message)
        continue
      }
      if case .stop = message { isCutShort = true }
      handle(message)
      settle()
    }
  }

  /// Whether a message is to be handled. Only when all are that were taken out of the mailbox are more of it: what waits there is
  /// bounded, and who sends is told.
  private func hasMessage() -> Bool {
    if inboxNext < inbox.count { return true }
    inboxNext = 0
    // Of much its memory is not needed soon again.
    let isLong = inbox.capacity > Self.inboxKeptMax
    if isLong { inbox = [] } else { inbox.removeAll(keepingCapacity: true) }
    guard hasMail else { return false }
    hasMail = false
    let bytes = mailbox.drain(into: &inbox)
    if isLong || bytes > Self.muchBytes { willRelaxMemory() }
    return !inbox.isEmpty
  }

  private func handle(_ message: WorkerMessage) {
    switch message {
    case .accepted(let client): accept(client)
    case .broadcast(let packet): received(packet)
    case .send(let id, let bytes, let framed): unsafe deliver(bytes.bytes, to: id, framed: framed)
    case .sends(let packet): received(packet)
    case .close(let id, let reason):
      if let connection = unsafe table.find(id.key) { unsafe close(connection, .script(reason)) }
    case .published(let message): deliver(message)
    case .resolved(let purpose, let result): resolved(purpose, result)
    case .answer(let ticket, let answer): due.append(.answer(ticket, answer))
    case .connected(let number): due.append(.connected(number))
    case .console(let line): console(line)
    case .connections(let query): query.answer(answer(query))
    case .prepare(let transaction): prepare(transaction)
    case .commit(let transaction): commit(transaction)
    case .discard(let transaction): discard(transaction)
    case .endOlder(let number): endTasks(olderThan: number)
    case .memoryFreed: willRelaxMemory()
    case .stop(let reason): beginStop(reason)
    }
  }

  /// Delivers broadcasts and messages for single connections that wait in the mailbox, and to subscribers if so told; everything else
  /// stays for later. False when that is not done by `deadline`: what is left then stays in its order.
  func deliverWaiting(toSubscribers: Bool, until deadline: UInt64 = .max) -> Bool {
    mailbox.drain(into: &inbox)
    let messages = inbox[inboxNext...]
    inbox = []
    inboxNext = 0
    var isInTime = true
    for message in messages {
      guard isInTime, message.isForClients || toSubscribers && message.isForSubscribers else {
        inbox.append(message)
        continue
      }
      handle(message)
      settle()
      isInTime = CompletionPort.clock() < deadline
      while delivery != nil, isInTime {
        var share = TurnShare(atMost: Self.inboxPerTurnMax)
        goOnDelivering(&share)
        isInTime = CompletionPort.clock() < deadline
      }
    }
    return isInTime
  }

  // MARK: New clients

  private func accept(_ client: AcceptedClient) {
    // A reload may have removed the listener while the client was on its way here.
    guard listeners[Int(client.listener)].isCurrent else { return turnAway(client) }
    let names = SocketNames(of: client.descriptor)
    guard let key = try? port.associate(Descriptor(adopting: client.descriptor), as: .socket) else {
      log.error("an accepted client could not be taken over")
      return neverOpened(client)
    }
    // A slot beyond what an id has room for would take another connection's id.
    guard key.slot < ConnectionID.slotsMax else {
      log.error("more connections than one worker can have: a client was refused")
      port.close(key)
      return neverOpened(client)
    }
    // What was said before it came is not for it.
    spread(sendsNow: false)
    let connection = unsafe table.insert(key)
    let entry = listeners[Int(client.listener)]
    unsafe connection.pointee.listener = client.listener
    unsafe connection.pointee.peerHash = client.peerHash
    unsafe connection.pointee.codec = entry.codec
    codecs.retain(entry.codec)
    unsafe connection.pointee.openedAt = now
    unsafe connection.pointee.lastMessageAt = now
    unsafe startRate(connection)
    unsafe connection.pointee.object = unsafe lua.makeConnection(
      id: id(of: connection).rawValue, peer: names.peer, address: names.address)
    guard unsafe connection.pointee.object.exists else {
      log.error("out of memory: a client was refused")
      unsafe connection.pointee.phase = .ending
      counters.connections.subtract(1, ordering: .relaxed)
      return unsafe lost(connection, .error)
    }
    unsafe scheduleOpenDeadline(connection)
    unsafe callOpen(connection)
  }

  /// Closes a client that nobody serves.
  func turnAway(_ client: AcceptedClient) {
    Descriptor(adopting: client.descriptor).close()
    neverOpened(client)
  }

  /// Takes a client that was counted when it was placed out of all counts.
  private func neverOpened(_ client: AcceptedClient) {
    counters.connections.subtract(1, ordering: .relaxed)
    unsafe listeners[Int(client.listener)].counters?._withUnsafeGuaranteedRef {
      _ = $0.open.subtract(1, ordering: .relaxed)
    }
    server.released(worker: index, listener: client.listener, peerHash: client.peerHash)
  }

  private func callOpen(_ connection: UnsafeMutablePointer<Connection>) {
    let key = unsafe connection.pointee.key
    let handler = unsafe listeners[Int(connection.pointee.listener)].handlers.open
    if handler.exists {
      unsafe connection.pointee.flags.insert(.busy)
      let owner = TaskOwner(kind: .open, connection: key, codeGeneration: generationNumber)
      unsafe start(handler, LuaArguments(.reference(connection.pointee.object)), owner)
    }
    if let connection = unsafe table.find(key) { unsafe resumeReading(connection) }
  }

  /// on_open returned false: the client is let go, and there is no on_close, since it was never opened.
  func refuse(_ connection: UnsafeMutablePointer<Connection>) {
    guard unsafe connection.pointee.phase == .open else { return }
    let object = unsafe connection.pointee.object
    unsafe close(connection, .script("refused"))
    due.removeAll {
      if case .closed(let closed, _, _, _) = $0 { closed == object } else { false }
    }
    lua.release(object)
    server.refused("refused by on_open")
  }

  // MARK: Console and questions

  /// on_console, or the default: every client gets the line.
  private func console(_ line: String) {
    var line = line
    let handler = listeners.first?.handlers.console ?? .none
    line.withUTF8 { utf8 in
      let bytes = UnsafeRawBufferPointer(utf8)
      if handler.exists {
        let owner = TaskOwner(kind: .event, connection: .none, codeGeneration: generationNumber)
        unsafe start(handler, LuaArguments(.bytes(bytes)), owner)
      } else {
        unsafe broadcast(bytes, room: nil, except: nil)
      }
    }
  }

  /// All connections of this worker, or the one to be closed if it is here.
  private func answer(_ query: ConnectionQuery) -> [ConnectionSummary] {
    guard let kicked = query.kick else { return summaries() }
    guard kicked.workerIndex == index, let connection = unsafe table.find(kicked.key),
      unsafe connection.pointee.isUsable
    else {
      return []
    }
    let found = unsafe summary(of: connection)
    unsafe close(connection, .script("kicked"))
    return [found]
  }

  private func summaries() -> [ConnectionSummary] {
    var all: [ConnectionSummary] = []
    for key in table.keys() {
      if let connection = unsafe table.find(key) { unsafe all.append(summary(of: connection)) }
    }
    return all
  }

  private func summary(of connection: UnsafeMutablePointer<Connection>) -> ConnectionSummary {
    let names = unsafe port.descriptor(of: connection.pointee.key).map { SocketNames(of: $0) }
    var summary = ConnectionSummary()
    summary.id = unsafe id(of: connection).rawValue
    summary.peer = names?.peer ?? ""
    summary.address = names?.address ?? ""
    summary.worker = index + 1
    summary.ageSeconds = unsafe Self.seconds(now - connection.pointee.openedAt)
    summary.idleSeconds = unsafe Self.seconds(now - min(now, lastActive(connection)))
    summary.isOutgoing = unsafe connection.pointee.flags.contains(.outgoing)
    summary.messagesIn = unsafe Int64(connection.pointee.messagesIn)
    summary.messagesOut = unsafe Int64(connection.pointee.messagesOut)
    summary.bytesIn = unsafe Int64(connection.pointee.bytesIn + relayedBytes(connection))
    summary.bytesOut = unsafe Int64(connection.pointee.bytesOut + relayedBytes(to: connection))
    summary.queuedBytes = unsafe connection.pointee.output.count
    summary.rooms = unsafe rooms.names(of: connection).map(\.text)
    return summary
  }

  /// The client as the log names it, for an operator who may want to keep it out.
  func peerName(_ connection: UnsafeMutablePointer<Connection>) -> String {
    unsafe port.descriptor(of: connection.pointee.key).map { SocketNames(of: $0).peer } ?? "unknown"
  }

  private static func seconds(_ nanoseconds: UInt64) -> Double { Double(nanoseconds) / 1e9 }
}

/// The two ends of a socket as text.
struct SocketNames {
  let peer: String
  let address: String

  init(of descriptor: Int32) {
    peer = (try? SocketAddress.peer(of: descriptor))?.description ?? "unknown"
    address = (try? SocketAddress.local(of: descriptor))?.description ?? "unknown"
  }
}
