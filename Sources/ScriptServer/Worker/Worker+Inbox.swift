// What other threads ask of this worker: taking over an accepted client, delivering to its connections, answering questions.

import CompletionIO
import LuaRuntime

extension Worker {
  /// Handles what came by mailbox, in order. A reload's switch takes what is left itself.
  func handleInbox() {
    while !inbox.isEmpty, !isEnding {
      let messages = inbox
      inbox.removeAll(keepingCapacity: true)
      for message in messages {
        handle(message)
        settle()
      }
    }
  }

  private func handle(_ message: WorkerMessage) {
    switch message {
    case .accepted(let client): accept(client)
    case .broadcast(let packet): broadcastHere(packet.message.bytes, room: packet.room, except: packet.except)
    case .send(let id, let bytes, let framed):
      guard let connection = table.find(id.key) else { return }
      _ = framed ? send(connection, bytes.bytes) : write(connection, bytes.bytes)
    case .close(let id, let reason):
      if let connection = table.find(id.key) { close(connection, .script(reason)) }
    case .console(let line): console(line)
    case .connections(let query): query.answer(connectionSummaries())
    case .prepare(let transaction): prepare(transaction)
    case .commit(let transaction): commit(transaction)
    case .discard(let transaction): discard(transaction)
    case .endOlder(let number): endTasks(olderThan: number)
    case .stop(let reason): beginStop(reason)
    }
  }

  /// Delivers broadcasts and messages for single connections that wait in the mailbox; everything else stays for later.
  func deliverWaiting() {
    mailbox.drain(into: &inbox)
    let messages = inbox
    inbox.removeAll(keepingCapacity: true)
    var later: [WorkerMessage] = []
    for message in messages {
      switch message {
      case .broadcast, .send, .close:
        handle(message)
        settle()
      default: later.append(message)
      }
    }
    inbox.insert(contentsOf: later, at: 0)
  }

  // MARK: New clients

  private func accept(_ client: AcceptedClient) {
    let names = SocketNames(of: client.descriptor)
    guard let key = try? port.associate(Descriptor(adopting: client.descriptor), as: .socket) else {
      log.error("an accepted client could not be taken over")
      counters.connections.subtract(1, ordering: .relaxed)
      server.released(worker: index, listener: client.listener, peerHash: client.peerHash)
      return
    }
    let connection = table.insert(key)
    let entry = listeners[Int(client.listener)]
    connection.pointee.listener = client.listener
    connection.pointee.peerHash = client.peerHash
    connection.pointee.codec = entry.codec
    codecs.retain(entry.codec)
    connection.pointee.openedAt = now
    connection.pointee.lastMessageAt = now
    entry.counters?.open.add(1, ordering: .relaxed)
    connection.pointee.object = lua.makeConnection(
      id: id(of: connection).rawValue, peer: names.peer, address: names.address)
    guard connection.pointee.object.exists else {
      log.error("out of memory: a client was refused")
      connection.pointee.phase = .ending
      counters.connections.subtract(1, ordering: .relaxed)
      return lost(connection, .error)
    }
    scheduleOpenDeadline(connection)
    callOpen(connection)
  }

  private func callOpen(_ connection: UnsafeMutablePointer<Connection>) {
    let key = connection.pointee.key
    let handler = listeners[Int(connection.pointee.listener)].handlers.open
    if handler.exists {
      connection.pointee.flags.insert(.busy)
      let owner = TaskOwner(kind: .open, connection: key, codeGeneration: generationNumber)
      start(handler, LuaArguments(.reference(connection.pointee.object)), owner)
    }
    if let connection = table.find(key) { resumeReading(connection) }
  }

  /// on_open returned false: the client is let go, and there is no on_close, since it was never opened.
  func refuse(_ connection: UnsafeMutablePointer<Connection>) {
    guard connection.pointee.phase == .open else { return }
    let object = connection.pointee.object
    close(connection, .script("refused"))
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
        start(handler, LuaArguments(.bytes(bytes)), owner)
      } else {
        broadcast(bytes, room: nil, except: nil)
      }
    }
  }

  /// Queues `message` for every connection of every worker, or of one room.
  func broadcast(_ message: UnsafeRawBufferPointer, room: String?, except: ConnectionID?) {
    if server.workers.count > 1 {
      let packet = BroadcastPacket(message: SharedBytes(copying: message), room: room, except: except)
      for worker in server.workers where worker !== self {
        if !worker.mailbox.postDroppable(.broadcast(packet), bytes: message.count) { counters.dropped.add(1) }
      }
    }
    broadcastHere(message, room: room, except: except)
  }

  private func connectionSummaries() -> [ConnectionSummary] {
    table.keys().compactMap { key in table.find(key).map { summary(of: $0) } }
  }

  private func summary(of connection: UnsafeMutablePointer<Connection>) -> ConnectionSummary {
    let names = port.descriptor(of: connection.pointee.key).map { SocketNames(of: $0) }
    return ConnectionSummary(
      id: id(of: connection).rawValue, peer: names?.peer ?? "", localAddress: names?.address ?? "",
      worker: index + 1, ageSeconds: Self.seconds(now - connection.pointee.openedAt),
      idleSeconds: Self.seconds(now - connection.pointee.lastMessageAt),
      messagesIn: Int(connection.pointee.messagesIn), messagesOut: Int(connection.pointee.messagesOut),
      bytesIn: Int(connection.pointee.bytesIn), bytesOut: Int(connection.pointee.bytesOut),
      queuedBytes: connection.pointee.output.count, rooms: rooms.names(of: connection))
  }

  private static func seconds(_ nanoseconds: UInt64) -> Double { Double(nanoseconds) / 1e9 }

  // MARK: The end

  /// Closes every connection; the worker ends once they are gone, or after a second.
  private func beginStop(_ reason: String) {
    for key in table.keys() {
      guard let connection = table.find(key) else { continue }
      close(connection, .shutdown)
      settle()
    }
    callStop(reason)
    flushDirty()
    isEnding = true
  }

  private func callStop(_ reason: String) {
    guard let handler = listeners.first?.handlers.stop, handler.exists else { return }
    var text = reason
    let owner = TaskOwner(kind: .event, connection: .none, codeGeneration: generationNumber)
    text.withUTF8 { bytes in
      start(handler, LuaArguments(.bytes(UnsafeRawBufferPointer(bytes))), owner)
    }
    settle()
  }

  /// Lets what was flushed leave, then frees everything.
  func finish() {
    lingerBriefly()
    for key in table.keys() {
      if let connection = table.find(key) { lost(connection, .shutdown) }
    }
    for message in mailbox.close() {
      if case .accepted(let client) = message { Descriptor(adopting: client.descriptor).close() }
    }
    due.removeAll()
    coroutines.drain()
    lua.close()
    server.workerEnded(index)
  }

  /// Gives clients a moment to take what is queued, so that they see an end and no reset.
  private func lingerBriefly() {
    let deadline = CompletionPort.clock() + Self.stopNanoseconds
    while !table.isEmpty {
      let clock = CompletionPort.clock()
      if clock >= deadline { return }
      for completion in port.dequeue(timeoutNanoseconds: Int64(deadline - clock)) {
        now = port.now
        switch completion.kind {
        case .read: received(completion)
        case .write: written(completion)
        case .hangup: hungUp(completion)
        case .packet, .accept, .connect: break
        }
        settle()
      }
      flushDirty()
    }
  }

  /// How long a stopping worker waits for its clients to take their last bytes.
  private static let stopNanoseconds: UInt64 = 1_000_000_000
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
