// Messages for single connections by their ids, from whatever worker: to one of this worker's they are queued at once, to one of
// another's they go at the turn's end, together with all that the turn has for that worker.

import LuaRuntime

/// What this worker has gathered for the others in a turn.
@safe
struct SendsToOthers: ~Copyable {
  private let gathered: UnsafeMutablePointer<GatheredSends>
  private let workerCount: Int
  /// The workers for which something waits, in the order of their first messages.
  private var waiting: [Int] = []

  init(workerCount: Int) {
    self.workerCount = workerCount
    unsafe gathered = .allocate(capacity: workerCount)
    for index in 0..<workerCount { unsafe (gathered + index).initialize(to: GatheredSends()) }
  }

  deinit {
    unsafe gathered.deinitialize(count: workerCount)
    unsafe gathered.deallocate()
  }

  /// Whether nothing waits for any worker.
  var isEmpty: Bool { waiting.isEmpty }

  /// Whether nothing waits for this worker.
  func isEmpty(for worker: Int) -> Bool { unsafe gathered[worker].isEmpty }

  /// Adds a message; whether what waits for its worker is to go now.
  mutating func append(_ message: UnsafeRawBufferPointer, to id: ConnectionID, framed: Bool) -> Bool {
    let worker = id.workerIndex
    if unsafe gathered[worker].isEmpty { waiting.append(worker) }
    unsafe gathered[worker].append(message, to: id, framed: framed)
    return unsafe gathered[worker].isFull
  }

  /// Calls `body` with what waits for each worker, which is gathered no longer.
  mutating func takeAll(_ body: (Int, SendPacket) -> Void) {
    for worker in waiting { unsafe body(worker, gathered[worker].takePacket()) }
    waiting.removeAll(keepingCapacity: true)
  }
}

extension Worker {
  /// Sends or writes to a connection of any worker. To one of another worker, `queued` says that the message is on its way there.
  func send(_ bytes: UnsafeRawBufferPointer, to id: ConnectionID, framed: Bool) -> SendResult {
    if id.workerIndex == index || !server.workers.indices.contains(id.workerIndex) {
      guard id.workerIndex == index, let connection = unsafe table.find(id.key) else { return .closed }
      return unsafe framed ? send(connection, bytes) : write(connection, bytes)
    }
    // A broadcast made before comes first.
    if !gatheredForOthers.isEmpty { postGathered() }
    let mailbox = server.workers[id.workerIndex].mailbox
    if bytes.count >= GatheredSends.largeBytesMin {
      postGathered()
      let message = unsafe WorkerMessage.send(id, SharedBytes(copying: bytes), framed: framed)
      return mailbox.postDroppable(message, bytes: bytes.count) ? .queued : dropped()
    }
    if sendsToOthers.isEmpty(for: id.workerIndex), !mailbox.hasRoom(forBytes: bytes.count) { return dropped() }
    if unsafe sendsToOthers.append(bytes, to: id, framed: framed) { postGathered() }
    return .queued
  }

  private func dropped() -> SendResult {
    counters.dropped.add(1)
    return .overflow
  }

  /// Hands the other workers what was gathered for their connections.
  func postSends() {
    sendsToOthers.takeAll { worker, packet in
      server.workers[worker].mailbox.post(.sends(packet), bytes: packet.byteCount)
    }
  }

  /// Delivers what another worker has gathered.
  func received(_ packet: SendPacket) {
    unsafe packet.forEachMessage { id, bytes, framed in
      unsafe deliver(bytes, to: id, framed: framed)
      settle()
    }
  }

  /// A message from another worker to one of this worker's connections, which may have ended meanwhile.
  func deliver(_ bytes: UnsafeRawBufferPointer, to id: ConnectionID, framed: Bool) {
    guard let connection = unsafe table.find(id.key) else { return }
    _ = unsafe framed ? send(connection, bytes) : write(connection, bytes)
  }
}
