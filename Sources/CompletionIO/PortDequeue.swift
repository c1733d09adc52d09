// From readiness to completions: wait, perform what was submitted, and collect the results of one batch. It must never
// know who gets them.

import CLinux
import Glibc
import SystemPackage

extension PortState {
  /// One batch; see `CompletionPort.dequeue`.
  mutating func dequeue(timeoutNanoseconds: Int64) -> UnsafeBufferPointer<Completion> {
    disarmFinishedWrites()
    completions.removeAll()
    readBuffer.removeAll()
    endRest()
    // Events that the last batch had no room for come first, without a wait: asking the kernel again would bring the
    // same busy descriptors to the front each time and never the others.
    if !epoll.hasEvents { wait(timeoutNanoseconds) }
    now = SystemCall.monotonicNanoseconds()
    takePackets()
    if !alwaysReady.isEmpty { serveAlwaysReady() }
    acceptsLeft = acceptsPerBatchMax
    serveGoingOn()
    serveEvents()
    return unsafe completions.all
  }

  // MARK: waiting

  private mutating func wait(_ timeoutNanoseconds: Int64) {
    var timeout = timeoutNanoseconds
    if !resting.isEmpty {
      let rest = Int64(restEnds > now ? restEnds - now : 0)
      timeout = timeout < 0 ? rest : min(timeout, rest)
    }
    if timeout == 0 || wakeup.hasPackets || hasReadyFile || !relaysGoingOn.isEmpty {
      epoll.wait(nanoseconds: 0)
    } else {
      let mayForget = wakeup.prepareToSleep()
      epoll.wait(nanoseconds: mayForget ? timeout : 0)
      wakeup.awake()
    }
  }

  private var hasReadyFile: Bool {
    if alwaysReady.isEmpty { return false }
    return alwaysReady.contains { unsafe table.find($0)?.pointee.flags.contains(.reading) ?? false }
  }

  /// Stops watching for writability where the last batch's write completion was not followed by another write.
  private mutating func disarmFinishedWrites() {
    if completions.writeCount == 0 { return }
    for index in 0..<completions.count {
      let completion = completions[index]
      guard completion.kind == .write else { continue }
      guard let state = unsafe table.find(completion.key) else { continue }
      if unsafe !state.pointee.flags.isDisjoint(with: [.writing, .relayed])
        || !state.pointee.flags.contains(.registered)
      {
        continue
      }
      unsafe drop(.writable, state, completion.key)
    }
  }

  // MARK: collecting

  private mutating func takePackets() {
    var left = PortLimits.packetsMax
    while left > 0, let packet = wakeup.take() {
      completions.append(Completion(packet))
      left -= 1
    }
  }

  /// Reads of handles that are ready at all times, in turn and only a few per batch: they would otherwise take the whole
  /// read buffer each time.
  private mutating func serveAlwaysReady() {
    var left = PortLimits.fileReadsMax
    for _ in 0..<alwaysReady.count where left > 0 && readBuffer.hasRoom {
      nextAlwaysReady = (nextAlwaysReady + 1) % alwaysReady.count
      let key = alwaysReady[nextAlwaysReady]
      guard let state = unsafe table.find(key), unsafe state.pointee.flags.contains(.reading) else { continue }
      unsafe finishRead(state, key)
      left -= 1
    }
  }

  private mutating func serveEvents() {
    while epoll.hasEvents {
      let key = HandleKey(rawValue: epoll.nextKey)
      // A stale key: the handle was closed while its event waited. The wake-up's key is stale by construction.
      guard let state = unsafe table.find(key) else {
        _ = epoll.takeEvent()
        continue
      }
      if unsafe state.pointee.kind == .listener {
        guard completions.room > PortLimits.acceptsMax else { return }
        _ = epoll.takeEvent()
        unsafe acceptSome(state, key)
      } else {
        guard readBuffer.hasRoom, completions.room >= PortLimits.completionsPerEventMax else { return }
        unsafe serve(epoll.takeEvent(), state, key)
      }
    }
  }

  /// What one event means for a socket or file, by what is submitted on it.
  @inline(__always)
  private mutating func serve(_ events: Epoll.Events, _ state: UnsafeMutablePointer<HandleState>, _ key: HandleKey) {
    let isBroken = !events.isDisjoint(with: .broken)
    let flags = unsafe state.pointee.flags
    if !flags.isDisjoint(with: [.connecting, .relayed]) {
      return unsafe flags.contains(.connecting) ? finishConnect(state, key) : serveRelayed(events, state, key)
    }
    if flags.contains(.writing) && (isBroken || events.contains(.writable)) { unsafe finishWrite(state, key) }
    if flags.contains(.reading) && (isBroken || events.contains(.readable)) { unsafe finishRead(state, key) }
    if flags.isDisjoint(with: [.reading, .writing]) && isBroken { return unsafe hangUp(state, key) }
    var unwanted = Epoll.Events()
    if !flags.contains(.reading) { unwanted.formUnion(.readable) }
    if !flags.contains(.writing) { unwanted.formUnion(.writable) }
    unwanted.formIntersection(events)
    if !unwanted.isEmpty { unsafe drop(unwanted, state, key) }
  }

  private mutating func drop(_ unwanted: Epoll.Events, _ state: UnsafeMutablePointer<HandleState>, _ key: HandleKey) {
    let interest = unsafe state.pointee.interest.subtracting(unwanted)
    if unsafe interest == state.pointee.interest { return }
    unsafe epoll.modify(state.pointee.descriptor, to: interest, key: key.rawValue)
    unsafe state.pointee.interest = interest
  }

  // MARK: finishing one operation

  @inline(__always)
  private mutating func finishRead(_ state: UnsafeMutablePointer<HandleState>, _ key: HandleKey) {
    let (start, bytes) = unsafe readBuffer.free
    let descriptor = unsafe state.pointee.descriptor
    let outcome =
      unsafe state.pointee.kind == .socket
      ? SystemCall.receive(descriptor, into: start, bytesMax: bytes)
      : SystemCall.read(descriptor, into: start, bytesMax: bytes)
    switch outcome {
    case .wouldBlock: return
    case .done(let count):
      readBuffer.keep(count)
      unsafe completions.append(Completion(.read, key, count: count, bytes: UnsafeRawPointer(start)))
    case .failed(let error):
      unsafe completions.append(Completion(.read, key, errorNumber: error.rawValue))
    }
    unsafe state.pointee.flags.remove(.reading)
  }

  mutating func finishWrite(_ state: UnsafeMutablePointer<HandleState>, _ key: HandleKey) {
    guard let base = unsafe state.pointee.writeBase else { preconditionFailure("a waiting write without bytes") }
    switch unsafe transmit(base, state.pointee.writeBytes, state) {
    case .wouldBlock: return
    case .done(let count): unsafe completions.append(Completion(.write, key, count: count))
    case .failed(let error): unsafe completions.append(Completion(.write, key, errorNumber: error.rawValue))
    }
    unsafe state.pointee.flags.remove(.writing)
    unsafe state.pointee.writeBase = nil
    unsafe state.pointee.writeBytes = 0
  }

  private mutating func finishConnect(_ state: UnsafeMutablePointer<HandleState>, _ key: HandleKey) {
    let descriptor = unsafe state.pointee.descriptor
    let errorNumber = SystemCall.pendingError(descriptor)
    // An event from before the connect began says nothing about it.
    if errorNumber == 0, (try? SocketAddress.peer(of: descriptor)) == nil { return }
    unsafe state.pointee.flags.remove(.connecting)
    unsafe completions.append(Completion(.connect, key, errorNumber: errorNumber))
    guard errorNumber == 0 else { return unsafe unwatch(state) }
    let interest: Epoll.Events = unsafe state.pointee.flags.contains(.writing) ? [.readable, .writable] : .readable
    epoll.modify(descriptor, to: interest, key: key.rawValue)
    unsafe state.pointee.interest = interest
  }

  private mutating func hangUp(_ state: UnsafeMutablePointer<HandleState>, _ key: HandleKey) {
    let errorNumber = unsafe state.pointee.kind == .socket ? SystemCall.pendingError(state.pointee.descriptor) : 0
    unsafe completions.append(Completion(.hangup, key, errorNumber: errorNumber))
    unsafe unwatch(state)
  }

  // MARK: accepting

  private mutating func acceptSome(_ state: UnsafeMutablePointer<HandleState>, _ key: HandleKey) {
    guard unsafe state.pointee.flags.contains(.reading) else { return unsafe unwatch(state) }
    while acceptsLeft > 0 {
      acceptsLeft -= 1
      switch unsafe SystemCall.accept(state.pointee.descriptor) {
      case .wouldBlock: return
      case .done(let descriptor): unsafe completions.append(Completion(.accept, key, count: descriptor))
      case .failed(let error):
        if SystemCall.concernsOneConnection(error) { continue }
        unsafe completions.append(Completion(.accept, key, errorNumber: error.rawValue))
        if SystemCall.isExhaustion(error) { return unsafe rest(state, key) }
        unsafe state.pointee.flags.remove(.reading)
        return unsafe unwatch(state)
      }
    }
  }
}
