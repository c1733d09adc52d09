// The end of a worker: every connection is closed, what was said before is flushed, and whoever waits for an answer gets one.

import CompletionIO
import Logging
import LuaRuntime

extension Worker {
  /// Closes every connection; the worker ends once they are gone, or after a second.
  func beginStop(_ reason: String) {
    dueShare = .unlimited
    settle()
    closeAll(outgoing: false)
    isStopping = true
    callStop(reason)
    // What handlers have said to others at the end is said; then these go, too.
    closeAll(outgoing: true)
    for number in connects.all { abandonConnect(number) }
    flushDirty()
    isEnding = true
  }

  private func closeAll(outgoing: Bool) {
    for key in table.keys() {
      guard let connection = unsafe table.find(key),
        unsafe connection.pointee.flags.contains(.outgoing) == outgoing
      else { continue }
      unsafe close(connection, .shutdown)
      settle()
    }
  }

  private func callStop(_ reason: String) {
    guard let handler = listeners.first?.handlers.stop, handler.exists else { return }
    var text = reason
    let owner = TaskOwner(kind: .event, connection: .none, codeGeneration: generationNumber)
    text.withUTF8 { bytes in
      unsafe start(handler, LuaArguments(.bytes(UnsafeRawBufferPointer(bytes))), owner)
    }
    settle()
  }

  /// Lets go of what the worker has not got to. Messages are among it where it was told to end before it had caught up, and where
  /// others have sent them since it was told to.
  private func abandonMail() {
    let messages = inbox[inboxNext...] + mailbox.close()
    for message in messages { abandon(message) }
    if !isCutShort { return }
    let count = messages.reduce(delivery == nil ? 0 : 1) {
      $0 + ($1.isForClients || $1.isForSubscribers ? $1.count : 0)
    }
    if count == 0 { return }
    log.warning(
      "a worker ended before it had handled all that was sent to it: the rest is dropped",
      metadata: ["messages": "\(count)", "worker": "\(index + 1)"])
    server.dropped(messages: count)
  }

  /// Answers whoever waits for this worker, which has ended, and lets go of clients that it has not taken over.
  func abandon(_ message: WorkerMessage) {
    switch message {
    case .accepted(let client): turnAway(client)
    case .connections(let query): query.answer([])
    case .prepare(let transaction): transaction.loaded("the server is ending")
    case .commit(let transaction): transaction.giveUp("the server is ending")
    case .broadcast, .send, .sends, .close, .published, .answer, .connected, .resolved, .console, .discard, .endOlder,
      .memoryFreed, .stop:
      break
    }
  }

  /// Lets what was flushed leave, then frees everything.
  func finish() {
    lingerBriefly()
    for key in table.keys() {
      if let connection = unsafe table.find(key) { unsafe lost(connection, .shutdown) }
    }
    abandonMail()
    due.removeAll()
    coroutines.drain()
    lua.close()
    server.workerEnded(index)
  }

  /// Gives clients a moment to take what is queued, so that they see an end and no reset.
  private func lingerBriefly() {
    flushDirty()
    let deadline = CompletionPort.clock() + Self.stopNanoseconds
    while !table.isEmpty {
      let clock = CompletionPort.clock()
      if clock >= deadline { return }
      let batch = unsafe port.dequeue(timeoutNanoseconds: Int64(deadline - clock))
      for index in batch.indices {
        let completion = unsafe batch[index]
        now = port.now
        switch completion.kind {
        case .read: received(completion)
        case .write: written(completion)
        case .hangup: hungUp(completion)
        case .packet, .accept, .connect, .relay: break
        }
        settle()
      }
      flushDirty()
    }
  }

  /// How long a stopping worker waits for its clients to take their last bytes.
  private static let stopNanoseconds: UInt64 = 1_000_000_000
}
