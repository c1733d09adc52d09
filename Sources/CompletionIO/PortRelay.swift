// Relaying: moving what one socket receives to another one without asking anybody, both ways, until a side ends. Bytes are
// read into the port's read buffer and sent from there; bulk goes through a pipe of the kernel. It must never know why.

import CLinux
import Glibc
import SystemPackage

extension PortState {
  // MARK: submitting and ending

  /// Begins one direction. The first one of a pair makes both handles edge-triggered, so that no change of what is waited
  /// for costs a system call.
  mutating func submitRelay(
    to target: HandleKey, _ source: UnsafeMutablePointer<HandleState>, _ key: HandleKey
  ) -> Submission {
    guard let other = unsafe table.find(target) else { return .failed(.badFileDescriptor) }
    unsafe precondition(source.pointee.kind == .socket && other.pointee.kind == .socket, "only sockets are relayed")
    unsafe precondition(!source.pointee.flags.contains(.reading), "a socket that is read cannot be relayed")
    if unsafe source.pointee.relay < 0 {
      unsafe precondition(key != target && other.pointee.relay < 0, "a socket is relayed to one other only")
      do {
        try unsafe watch(source, key, for: .relay)
        try unsafe watch(other, target, for: .relay)
      } catch { return .failed(error) }
      let index = relays.insert(key, target)
      unsafe source.pointee.relay = Int32(index)
      unsafe other.pointee.relay = Int32(index + 1)
      unsafe source.pointee.flags.insert(.relayed)
      unsafe other.pointee.flags.insert(.relayed)
    }
    let index = unsafe Int(source.pointee.relay)
    let side = unsafe relays[index]
    unsafe precondition(relays[index ^ 1].pointee.key == target, "a socket is relayed to one other only")
    unsafe side.pointee.flags.formUnion([.submitted, .canRead, .canWrite])
    unsafe side.pointee.lastMovedAt = now
    unsafe goOn(side, index)
    return .pending
  }

  /// Ends both directions of the pair and makes its handles ordinary ones again. What had been read and not taken goes to
  /// `held`, with the handle that it was for.
  mutating func endRelays(of key: HandleKey, held: ((HandleKey, UnsafeRawBufferPointer) -> Void)?) {
    guard let state = unsafe table.find(key), unsafe state.pointee.relay >= 0 else { return }
    let index = unsafe Int(state.pointee.relay)
    for index in [index, index ^ 1] {
      let side = unsafe relays[index]
      if let held = unsafe held, unsafe side.pointee.heldBytes > 0 {
        unsafe giveHeld(side, to: relays[index ^ 1].pointee.key, held)
      }
      unsafe forgetHeld(side)
      guard let state = unsafe table.find(side.pointee.key) else { continue }
      unsafe state.pointee.relay = -1
      unsafe state.pointee.flags.remove(.relayed)
      if unsafe !state.pointee.flags.contains(.registered) { continue }
      let interest: Epoll.Events = unsafe state.pointee.flags.contains(.writing) ? [.readable, .writable] : .readable
      unsafe epoll.modify(state.pointee.descriptor, to: interest, key: side.pointee.key.rawValue)
      unsafe state.pointee.interest = interest
    }
    relays.remove(index)
  }

  private func giveHeld(
    _ side: UnsafeMutablePointer<RelaySide>, to target: HandleKey, _ held: (HandleKey, UnsafeRawBufferPointer) -> Void
  ) {
    if let rest = unsafe side.pointee.rest {
      unsafe held(
        target,
        UnsafeRawBufferPointer(
          start: rest + side.pointee.restStart, count: side.pointee.restEnd - side.pointee.restStart))
    }
    guard unsafe side.pointee.pipeBytes > 0 else { return }
    let bytes = unsafe UnsafeMutableRawBufferPointer.allocate(byteCount: side.pointee.pipeBytes, alignment: 16)
    defer { unsafe bytes.deallocate() }
    var count = 0
    while count < bytes.count {
      let outcome = unsafe SystemCall.read(
        side.pointee.pipe.readEnd, into: bytes.baseAddress! + count, bytesMax: bytes.count - count)
      guard case .done(let more) = outcome, more > 0 else { break }
      count += more
    }
    unsafe held(target, UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(bytes)[..<count]))
  }

  /// Gives back the memory and the pipe of a direction, whatever is in them.
  private mutating func forgetHeld(_ side: UnsafeMutablePointer<RelaySide>) {
    unsafe free(side.pointee.rest)
    unsafe side.pointee.rest = nil
    unsafe side.pointee.restStart = 0
    unsafe side.pointee.restEnd = 0
    let pipe = unsafe side.pointee.pipe
    guard pipe.exists else { return }
    unsafe side.pointee.pipe = .none
    if unsafe side.pointee.pipeBytes == 0 { pipes.give(pipe) } else { pipes.drop(pipe) }
    unsafe side.pointee.pipeBytes = 0
  }

  /// Bytes that the direction from this handle has moved.
  func relayedBytes(from key: HandleKey) -> UInt64 {
    guard let state = unsafe table.find(key), unsafe state.pointee.relay >= 0 else { return 0 }
    return unsafe relays[Int(state.pointee.relay)].pointee.bytes
  }

  /// When either direction of the handle's pair last moved something.
  func lastRelayed(_ key: HandleKey) -> UInt64 {
    guard let state = unsafe table.find(key), unsafe state.pointee.relay >= 0 else { return 0 }
    let index = unsafe Int(state.pointee.relay)
    return unsafe max(relays[index].pointee.lastMovedAt, relays[index ^ 1].pointee.lastMovedAt)
  }

  // MARK: events

  /// What one event means for a relayed socket.
  mutating func serveRelayed(
    _ events: Epoll.Events, _ state: UnsafeMutablePointer<HandleState>, _ key: HandleKey
  ) {
    let index = unsafe Int(state.pointee.relay)
    let isBroken = !events.isDisjoint(with: .broken)
    if unsafe state.pointee.flags.contains(.writing), isBroken || events.contains(.writable) {
      unsafe finishWrite(state, key)
    }
    let out = unsafe relays[index]
    let back = unsafe relays[index ^ 1]
    if isBroken || !events.isDisjoint(with: [.readable, .ended]) { unsafe out.pointee.flags.insert(.canRead) }
    if isBroken || events.contains(.writable) { unsafe back.pointee.flags.insert(.canWrite) }
    if isBroken, unsafe !out.pointee.flags.contains(.submitted), unsafe back.pointee.flags.contains(.submitted) {
      // Nobody reads this socket any more, so nothing else would find out.
      let errorNumber = unsafe SystemCall.pendingError(state.pointee.descriptor)
      if errorNumber != 0 { return unsafe finishRelay(back, index ^ 1, errorNumber: errorNumber, ofTarget: true) }
    }
    unsafe move(out, index)
    unsafe move(back, index ^ 1)
  }

  /// Relays that had more to move than one batch allows.
  mutating func serveGoingOn() {
    if relaysGoingOn.isEmpty { return }
    let indexes = relaysGoingOn
    relaysGoingOn.removeAll(keepingCapacity: true)
    for (place, index) in indexes.enumerated() {
      guard place < PortLimits.relaysGoingOnMax, completions.room >= PortLimits.completionsPerEventMax else {
        // Before those that had their turn just now.
        relaysGoingOn.insert(contentsOf: indexes[place...], at: 0)
        return
      }
      let side = unsafe relays[Int(index)]
      unsafe side.pointee.flags.remove(.goesOn)
      unsafe move(side, Int(index))
    }
  }

  private mutating func goOn(_ side: UnsafeMutablePointer<RelaySide>, _ index: Int) {
    if unsafe side.pointee.flags.contains(.goesOn) { return }
    unsafe side.pointee.flags.insert(.goesOn)
    relaysGoingOn.append(Int32(index))
  }

  // MARK: moving

  private enum RelayStep {
    /// So many bytes were read or sent, or there may be more to do at once.
    case moved(Int)
    /// Nothing more until epoll says so.
    case waits
    /// It is over.
    case over
  }

  /// Moves bytes of one direction until a side has no more or takes no more, or others must have their turn.
  private mutating func move(_ side: UnsafeMutablePointer<RelaySide>, _ index: Int) {
    var left = PortLimits.relayBytesMax
    while unsafe side.pointee.flags.contains(.submitted) {
      if left <= 0 || !readBuffer.hasRoom { return unsafe goOn(side, index) }
      guard let source = unsafe table.find(side.pointee.key),
        let target = unsafe table.find(relays[index ^ 1].pointee.key)
      else { return }
      let step: RelayStep
      if unsafe side.pointee.heldBytes > 0 {
        step = unsafe deliver(side, index, to: target.pointee.descriptor)
      } else {
        step = unsafe fetch(side, index, from: source.pointee.descriptor, to: target.pointee.descriptor)
      }
      switch step {
      case .moved(let count): left -= count
      case .waits, .over: return
      }
    }
  }

  /// Sends what is held.
  private mutating func deliver(
    _ side: UnsafeMutablePointer<RelaySide>, _ index: Int, to target: CInt
  ) -> RelayStep {
    guard unsafe side.pointee.flags.contains(.canWrite) else { return .waits }
    let outcome: Outcome
    if let rest = unsafe side.pointee.rest {
      outcome = unsafe SystemCall.send(
        target, from: rest + side.pointee.restStart, bytes: side.pointee.restEnd - side.pointee.restStart)
    } else {
      outcome = unsafe SystemCall.splice(from: side.pointee.pipe.readEnd, to: target, bytesMax: side.pointee.pipeBytes)
    }
    switch outcome {
    case .done(let count):
      if unsafe side.pointee.rest != nil {
        unsafe side.pointee.restStart += count
        if unsafe side.pointee.restStart == side.pointee.restEnd { unsafe forgetHeld(side) }
      } else {
        unsafe side.pointee.pipeBytes -= count
      }
      unsafe delivered(side, count)
      return .moved(count)
    case .wouldBlock:
      unsafe side.pointee.flags.remove(.canWrite)
      return .waits
    case .failed(let error):
      unsafe finishRelay(side, index, errorNumber: error.rawValue, ofTarget: true)
      return .over
    }
  }

  @inline(__always)
  private mutating func delivered(_ side: UnsafeMutablePointer<RelaySide>, _ count: Int) {
    unsafe side.pointee.bytes += UInt64(count)
    unsafe side.pointee.lastMovedAt = now
    relayedBytes += UInt64(count)
  }

  /// Reads the source, if both sides are ready, and sends at once what it gave.
  private mutating func fetch(
    _ side: UnsafeMutablePointer<RelaySide>, _ index: Int, from source: CInt, to target: CInt
  ) -> RelayStep {
    if unsafe side.pointee.flags.contains(.sourceEnded) {
      unsafe finishRelay(side, index, errorNumber: 0, ofTarget: false)
      return .over
    }
    guard unsafe side.pointee.flags.isSuperset(of: [.canRead, .canWrite]) else {
      // A pipe is for those that have bulk at this moment.
      if unsafe side.pointee.pipe.exists { unsafe forgetHeld(side) }
      return .waits
    }
    if unsafe side.pointee.flags.contains(.isBulk), unsafe hasPipe(side) {
      return unsafe fetchIntoPipe(side, index, from: source)
    }
    let (start, bytes) = unsafe readBuffer.free
    switch unsafe SystemCall.receive(source, into: start, bytesMax: bytes) {
    case .wouldBlock:
      unsafe side.pointee.flags.remove(.canRead)
      return .moved(0)
    case .failed(let error):
      unsafe finishRelay(side, index, errorNumber: error.rawValue, ofTarget: false)
      return .over
    case .done(0):
      unsafe side.pointee.flags.insert(.sourceEnded)
      return .moved(0)
    case .done(let count):
      // A short read may have left something (it stops at urgent data, and at messages with descriptors), of which there would
      // be no other edge: only EAGAIN says that the socket is empty.
      if count == bytes { unsafe side.pointee.flags.insert(.isBulk) }
      return unsafe sendAtOnce(start, count, side, index, to: target)
    }
  }

  /// Sends what was just read; what the target does not take is copied aside.
  private mutating func sendAtOnce(
    _ start: UnsafeMutableRawPointer, _ count: Int, _ side: UnsafeMutablePointer<RelaySide>, _ index: Int,
    to target: CInt
  ) -> RelayStep {
    var sent = 0
    while sent < count {
      switch unsafe SystemCall.send(target, from: start + sent, bytes: count - sent) {
      case .done(let more): sent += more
      case .failed(let error):
        unsafe finishRelay(side, index, errorNumber: error.rawValue, ofTarget: true)
        return .over
      case .wouldBlock:
        unsafe side.pointee.flags.remove(.canWrite)
        guard let rest = unsafe malloc(count - sent) else {
          unsafe finishRelay(side, index, errorNumber: ENOMEM, ofTarget: true)
          return .over
        }
        unsafe rest.copyMemory(from: start + sent, byteCount: count - sent)
        unsafe side.pointee.rest = unsafe rest
        unsafe side.pointee.restEnd = count - sent
        unsafe delivered(side, sent)
        return .waits
      }
    }
    unsafe delivered(side, sent)
    return .moved(sent)
  }

  // MARK: bulk

  /// A read below this ends the use of a pipe: for small amounts two splices cost more than a copy.
  private static let bulkBytesMin = 16 * 1024

  private mutating func hasPipe(_ side: UnsafeMutablePointer<RelaySide>) -> Bool {
    if unsafe side.pointee.pipe.exists { return true }
    guard let pipe = pipes.take() else { return false }
    unsafe side.pointee.pipe = pipe
    return true
  }

  private mutating func fetchIntoPipe(
    _ side: UnsafeMutablePointer<RelaySide>, _ index: Int, from source: CInt
  ) -> RelayStep {
    switch unsafe SystemCall.splice(from: source, to: side.pointee.pipe.writeEnd, bytesMax: PortLimits.readBytesMax) {
    case .wouldBlock:
      unsafe side.pointee.flags.remove(.canRead)
    case .done(0):
      unsafe side.pointee.flags.insert(.sourceEnded)
      unsafe forgetHeld(side)
    case .done(let count):
      unsafe side.pointee.pipeBytes = count
      if count < Self.bulkBytesMin { unsafe side.pointee.flags.remove(.isBulk) }
    case .failed(.invalidArgument), .failed(.noFunction):
      // This kind of socket, or this system, cannot: the bytes are still there to be copied.
      let pipe = unsafe side.pointee.pipe
      unsafe side.pointee.pipe = .none
      unsafe side.pointee.flags.remove(.isBulk)
      pipes.drop(pipe, isRefused: true)
    case .failed(let error):
      unsafe finishRelay(side, index, errorNumber: error.rawValue, ofTarget: false)
      return .over
    }
    return .moved(0)
  }

  // MARK: the end

  /// Ends one direction with a completion of its source.
  private mutating func finishRelay(
    _ side: UnsafeMutablePointer<RelaySide>, _ index: Int, errorNumber: CInt, ofTarget: Bool
  ) {
    unsafe forgetHeld(side)
    unsafe side.pointee.flags.remove(.submitted)
    unsafe completions.append(
      Completion(.relay, side.pointee.key, count: ofTarget ? 1 : 0, errorNumber: errorNumber))
  }
}
