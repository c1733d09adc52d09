// What is sent on a connection, and what is made of its answers. The way of a message: nothing here allocates unless an answer was wrong.
// Must never wait.

import Codecs
import CompletionIO
import SystemPackage

extension LoadRun {
  /// The first messages: in a closed loop every connection sends its first window.
  func begin(at start: UInt64) {
    if let rate = plan.rate {
      pacing = Pacing(start: start, messagesPerSecond: rate, connections: connectionCount)
      return sendDue()
    }
    if plan.expectation == .none { return sendFreely() }
    for number in 0..<connectionCount { sendMore(number, at: CompletionPort.clock()) }
  }

  /// Without answers and without a rate: one window on each connection that takes it, so that all have their turn.
  func sendFreely() {
    sendsFreely = false
    for number in 0..<connectionCount where unsafe connections[number].phase == .open {
      sendMore(number, at: 0)
      if unsafe connections[number].unsentBytes == 0 { sendsFreely = true }
    }
  }

  /// In an open loop: what is due by now, on the connections whose turn it is.
  func sendDue() {
    guard let pacing, isSending else { return }
    let now = CompletionPort.clock()
    let due = pacing.dueCount(at: now)
    let fresh = min(due - dueCount, connectionCount)
    let first = dueCount
    dueCount = due
    for offset in 0..<max(fresh, 0) {
      let number = (first + offset) % connectionCount
      sendMore(number, at: now)
      // Without answers a window that the socket took is done with, and all that is due may go.
      while plan.expectation == .none, isBehind(number) { sendMore(number, at: now) }
    }
  }

  /// Whether messages are due on the connection and its socket takes more.
  private func isBehind(_ number: Int) -> Bool {
    guard let pacing, unsafe connections[number].phase == .open else { return false }
    if unsafe connections[number].unsentBytes > 0 { return false }
    return unsafe pacing.share(of: number, in: dueCount) > connections[number].sentCount
  }

  func take(_ completion: Completion) {
    let number = Int(completion.key.slot) - 1
    guard unsafe connections[number].phase == .open else { return }
    switch completion.kind {
    case .read: received(completion, number)
    case .write: wrote(completion, number)
    case .hangup: lose(number, completion.error)
    case .accept, .connect, .packet, .relay: break
    }
  }

  // MARK: sending

  /// Decides how many messages go out on the connection now, and sends them.
  private func sendMore(_ number: Int, at now: UInt64) {
    let connection = unsafe connections + number
    // Of an open loop, what was due in time is sent after the time too: its latency says how late it was.
    guard isSending || pacing != nil else { return }
    guard unsafe connection.pointee.phase == .open, unsafe connection.pointee.unsentBytes == 0 else { return }
    var count = unsafe plan.expectation == .echo ? plan.inFlight - connection.pointee.inFlight : plan.inFlight
    if let pacing {
      count = unsafe min(count, pacing.share(of: number, in: dueCount) - connection.pointee.sentCount)
    } else if plan.expectation == .echo, unsafe connection.pointee.inFlight > 0 {
      // A closed loop sends the next window when all of the last one is back.
      return
    }
    guard count > 0 else { return }
    let slots = unsafe times + number * plan.inFlight
    var slot = unsafe connection.pointee.sentCount % plan.inFlight
    for index in 0..<count {
      unsafe slots[slot] = pacing.map { unsafe $0.dueTime(of: connection.pointee.sentCount + index, on: number) } ?? now
      slot = slot + 1 == plan.inFlight ? 0 : slot + 1
    }
    unsafe connection.pointee.sentCount += count
    unsafe connection.pointee.unsentBytes = count * ring.frameBytes
    figures.messagesSent += count
    flush(number)
  }

  /// Sends what was decided, as far as the socket takes it.
  private func flush(_ number: Int) {
    let connection = unsafe connections + number
    while unsafe connection.pointee.unsentBytes > 0, unsafe !connection.pointee.isWriting {
      let bytes = unsafe ring.bytes(from: connection.pointee.sendPosition, count: connection.pointee.unsentBytes)
      switch unsafe port.submitWrite(bytes, on: connection.pointee.key) {
      case .pending: unsafe connection.pointee.isWriting = true
      case .completed(let count): sent(count, number)
      case .failed(let error): lose(number, error)
      }
    }
  }

  private func sent(_ count: Int, _ number: Int) {
    let connection = unsafe connections + number
    unsafe connection.pointee.sendPosition = unsafe ring.advanced(connection.pointee.sendPosition, by: count)
    unsafe connection.pointee.unsentBytes -= count
    figures.bytesSent += count
    guard plan.expectation == .none, unsafe connection.pointee.unsentBytes == 0 else { return }
    // Without answers, a window is done with when the socket has all of it.
    if isSending { unsafe figures.messagesInTime += connection.pointee.inFlight }
    unsafe connection.pointee.backCount = unsafe connection.pointee.sentCount
  }

  private func wrote(_ completion: Completion, _ number: Int) {
    unsafe connections[number].isWriting = false
    if let error = completion.error { return lose(number, error) }
    sent(completion.count, number)
    flush(number)
    sendMore(number, at: CompletionPort.clock())
  }

  // MARK: answers

  private func received(_ completion: Completion, _ number: Int) {
    if completion.errorNumber != 0 || completion.count == 0 { return lose(number, completion.error) }
    let connection = unsafe connections + number
    let bytes = unsafe completion.bytes
    figures.bytesReceived += bytes.count
    if plan.expectation == .echo {
      let now = CompletionPort.clock()
      let whole = unsafe connection.pointee.decoder == nil ? compared(bytes, number) : decoded(bytes, number)
      if whole > 0 {
        answered(whole, number, at: now)
        sendMore(number, at: now)
      }
    }
    if unsafe connection.pointee.phase == .open { _ = unsafe port.submit(.read, on: connection.pointee.key) }
  }

  /// The messages that these bytes complete, all as they were sent; at the first difference the decoder takes over.
  private func compared(_ bytes: UnsafeRawBufferPointer, _ number: Int) -> Int {
    let connection = unsafe connections + number
    let position = unsafe connection.pointee.receivePosition
    let partial = unsafe connection.pointee.partialBytes
    guard unsafe ring.matches(bytes, at: position) else {
      let begin = (position - partial + ring.periodBytes) % ring.periodBytes
      unsafe connection.pointee.decoder = unsafe EchoDecoder(
        plan.codec, position: begin, arrived: ring.bytes(from: begin, count: partial))
      return unsafe decoded(bytes, number)
    }
    unsafe connection.pointee.receivePosition = ring.advanced(position, by: bytes.count)
    unsafe connection.pointee.partialBytes = (partial + bytes.count) % ring.frameBytes
    return (partial + bytes.count) / ring.frameBytes
  }

  private func decoded(_ bytes: UnsafeRawBufferPointer, _ number: Int) -> Int {
    guard let decoder = unsafe connections[number].decoder else { return 0 }
    let outcome = unsafe decoder.add(bytes, ring: ring)
    figures.mismatches += outcome.mismatches
    if let difference = outcome.difference { figures.note("connection \(number + 1): \(difference)") }
    if let failure = outcome.failure {
      figures.mismatches += 1
      figures.note("connection \(number + 1): \(failure)")
      end(number)
    }
    return outcome.messages
  }

  /// Takes the times of messages that came back.
  private func answered(_ count: Int, _ number: Int, at now: UInt64) {
    let connection = unsafe connections + number
    guard unsafe count <= connection.pointee.inFlight else {
      unsafe figures.mismatches += count - connection.pointee.inFlight
      figures.note("connection \(number + 1): more came back than was sent")
      return end(number)
    }
    let slots = unsafe times + number * plan.inFlight
    var slot = unsafe connection.pointee.backCount % plan.inFlight
    var sameTime = 0
    for index in 0..<count {
      let time = unsafe slots[slot]
      slot = slot + 1 == plan.inFlight ? 0 : slot + 1
      sameTime += 1
      // Messages that went out together are recorded together.
      if index + 1 < count, unsafe slots[slot] == time { continue }
      figures.record(nanoseconds: now > time ? now - time : 0, count: sameTime)
      sameTime = 0
    }
    unsafe connection.pointee.backCount += count
    figures.messagesBack += count
    if isSending { figures.messagesInTime += count }
  }

  // MARK: the end of a connection

  private func lose(_ number: Int, _ error: Errno?) {
    let reason = error.map { "broke: \($0)" } ?? "was closed by the server"
    figures.connectionsLost += 1
    figures.note(unsafe "connection \(number + 1) \(reason) after \(connections[number].backCount) answers")
    end(number)
  }

  private func end(_ number: Int) {
    unsafe port.close(connections[number].key)
    unsafe connections[number].phase = .ended
    unsafe connections[number].unsentBytes = 0
    unsafe connections[number].isWriting = false
    // Its messages in flight are lost with it, and counted as that and not as unanswered.
    unsafe connections[number].backCount = unsafe connections[number].sentCount
    openCount -= 1
  }

  /// Ends the time in which messages become due or count for the rate.
  func endSending(at end: UInt64) {
    sendDue()
    if let pacing { dueCount = max(dueCount, pacing.dueCount(at: end)) }
    isSending = false
  }

  /// In an open loop: messages that were due and are not sent.
  var overdueCount: Int {
    guard let pacing else { return 0 }
    var count = 0
    for number in 0..<connectionCount where unsafe connections[number].phase == .open {
      count += max(0, pacing.share(of: number, in: dueCount) - (unsafe connections[number].sentCount))
    }
    return count
  }
}
