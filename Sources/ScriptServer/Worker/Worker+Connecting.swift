// Connecting out: from the address a script names, by its look-up and one address after the other, to a connection like any
// other. The coroutine that asked waits all that time; if it stops waiting, everything is undone.

import Codecs
import CompletionIO
import Glibc
import Logging
import LuaRuntime
import Synchronization

extension Worker {
  /// The least time that one of several addresses gets, as in Go's dialer: enough for a lost first packet to be sent again.
  private static let attemptNanosecondsMin: UInt64 = 2_000_000_000

  // MARK: Beginning and giving up

  /// Begins to connect for a coroutine that waits from here on.
  func beginConnect(_ target: ConnectTarget, _ connect: PendingConnect) -> ConnectNumber {
    var connect = connect
    if case .addresses(let addresses) = target { connect.addresses = addresses.reversed() }
    let number = connects.insert(connect)
    switch target {
    case .addresses: tryNextAddress(number)
    case .name(let name, _):
      if !server.resolver.lookUp(name, for: .connect(number), until: connect.until, answerTo: mailbox) {
        failConnect(number, "busy")
      }
    }
    return number
  }

  /// A name was looked up for a coroutine, or for a connect, of which both may be over.
  func resolved(_ purpose: LookupPurpose, _ result: LookupResult) {
    switch purpose {
    case .task(let ticket):
      switch result {
      case .success(let addresses): due.append(.answer(ticket, .texts(addresses.map { Array($0.host.utf8) })))
      case .failure(let failure): due.append(.answer(ticket, .fails(Self.reason(failure))))
      }
    case .connect(let number):
      guard let connect = connects[number] else { return }
      switch result {
      case .success(let addresses):
        connects.update(number) { pending in
          pending.addresses = addresses.reversed().compactMap { SocketAddress(host: $0.host, port: connect.port) }
        }
        tryNextAddress(number)
      case .failure(let failure): failConnect(number, Self.reason(failure))
      }
    }
  }

  private static func reason(_ failure: HostLookupFailure) -> StaticString {
    switch failure {
    case .notFound: "not found"
    case .noAnswer: "timeout"
    case .exhausted: "busy"
    }
  }

  /// Ends a connect, which at some addresses fails at once, and tells the coroutine why.
  private func failConnect(_ number: ConnectNumber, _ reason: StaticString) {
    guard let ticket = connects[number]?.ticket else { return }
    abandonConnect(number)
    fail(ticket, reason)
  }

  /// Undoes what a connect has set up; harmless when it is over.
  func abandonConnect(_ number: ConnectNumber) {
    closeAttempt(number)
    guard let connect = connects.remove(number) else { return }
    codecs.release(connect.codec, lua: lua)
    outgoing.release(connect.handlers, lua: lua)
  }

  // MARK: One address after the other

  private func tryNextAddress(_ number: ConnectNumber) {
    while let connect = connects[number] {
      guard let address = connect.addresses.last else {
        return failConnect(number, (connect.failure ?? .unreachable).reason)
      }
      connects.update(number) { $0.addresses.removeLast() }
      guard server.hasDescriptorToSpare else {
        noteFailure(number, .tooMany)
        continue
      }
      do throws(ConnectRefusal) {
        if try open(address, number, addressesLeft: connect.addresses.count) { return }
      } catch {
        noteFailure(number, error.failure)
      }
    }
  }

  private struct ConnectRefusal: Error {
    let failure: ConnectFailure
  }

  /// Begins with one address; true when that is under way or done.
  private func open(
    _ address: SocketAddress, _ number: ConnectNumber, addressesLeft: Int
  ) throws(ConnectRefusal) -> Bool {
    let key: HandleKey
    do {
      key = try port.associate(try address.openSocket(), as: .socket)
    } catch {
      throw ConnectRefusal(failure: ConnectFailure(errorNumber: error.number))
    }
    server.outgoingDescriptors.add(1, ordering: .relaxed)
    connects.update(number) { $0.key = key }
    guard key.slot < ConnectionID.slotsMax else {
      closeAttempt(number)
      throw ConnectRefusal(failure: .tooMany)
    }
    switch port.submit(.connect(address), on: key) {
    case .completed: mailbox.post(.connected(number))  // in the next turn, as above
    case .failed(let error):
      closeAttempt(number)
      throw ConnectRefusal(failure: ConnectFailure(errorNumber: error.number))
    case .pending:
      if addressesLeft > 1 { limitAttempt(number, key, addressesLeft) }
    }
    return true
  }

  /// Gives one of several addresses its share of the time that is left, so that the next one gets a chance.
  private func limitAttempt(_ number: ConnectNumber, _ key: HandleKey, _ addressesLeft: Int) {
    guard let connect = connects[number] else { return }
    let clock = CompletionPort.clock()
    let left = connect.until > clock ? connect.until - clock : 0
    let share = max(left / UInt64(addressesLeft), min(left, Self.attemptNanosecondsMin))
    let deadline = deadlines.schedule(at: clock &+ share, payload: DeadlinePurpose.connect(key).payload)
    connects.update(number) { $0.deadline = deadline }
  }

  /// One of several addresses has had its share of the time.
  func connectDue(_ key: HandleKey) {
    guard let number = connects.number(of: key) else { return }
    connects.update(number) { $0.deadline = .none }
    attemptFailed(number, .timeout)
  }

  /// The port has made the connection, or could not.
  func connected(_ completion: Completion) {
    guard let number = connects.number(of: completion.key) else { return }
    if completion.errorNumber != 0 {
      return attemptFailed(number, ConnectFailure(errorNumber: completion.errorNumber))
    }
    if connectedToItself(completion.key) { return attemptFailed(number, .refused) }
    // Its time is not up any more, though it may be opened only in the next turn.
    if let connect = connects[number] { _ = deadlines.cancel(connect.deadline) }
    connects.update(number) { $0.deadline = .none }
    due.append(.connected(number))
  }

  /// A socket that the kernel gave the very port it connects to, on this machine, can connect to itself where nobody listens.
  private func connectedToItself(_ key: HandleKey) -> Bool {
    guard let descriptor = port.descriptor(of: key), let local = try? SocketAddress.local(of: descriptor), !local.isUnix
    else { return false }
    return (try? SocketAddress.peer(of: descriptor)) == local
  }

  private func attemptFailed(_ number: ConnectNumber, _ failure: ConnectFailure) {
    closeAttempt(number)
    noteFailure(number, failure)
    tryNextAddress(number)
  }

  private func noteFailure(_ number: ConnectNumber, _ failure: ConnectFailure) {
    connects.update(number) { $0.failure = max($0.failure ?? failure, failure) }
  }

  /// Closes the socket of the address that is being tried.
  private func closeAttempt(_ number: ConnectNumber) {
    guard let connect = connects[number] else { return }
    _ = deadlines.cancel(connect.deadline)
    guard connect.key != .none else { return }
    port.close(connect.key)
    server.outgoingReleased()
    connects.update(number) {
      $0.key = .none
      $0.deadline = .none
    }
  }

  // MARK: Connected

  /// Makes the connection known: its on_open is called, then `connect` returns it.
  func openOutgoing(_ number: ConnectNumber) {
    guard let connect = connects.remove(number) else { return }
    _ = deadlines.cancel(connect.deadline)
    let key = connect.key
    let names = port.descriptor(of: key).map { SocketNames(of: $0) }
    let connection = unsafe table.insert(key, isClient: false)
    unsafe connection.pointee.flags = [.outgoing, .ownCodec]
    unsafe connection.pointee.codec = connect.codec
    unsafe connection.pointee.handlers = connect.handlers
    unsafe connection.pointee.openedAt = now
    unsafe connection.pointee.lastMessageAt = now
    counters.outgoing.add(1)
    unsafe listenOrHold(connection)
    unsafe connection.pointee.object = unsafe lua.makeConnection(
      id: id(of: connection).rawValue, peer: names?.peer ?? "unknown", address: names?.address ?? "unknown")
    guard unsafe connection.pointee.object.exists else {
      log.error("out of memory: an outgoing connection was closed")
      unsafe connection.pointee.phase = .ending
      counters.outgoing.add(-1)
      unsafe lost(connection, .error)
      return give(.fails("out of memory"), to: connect.ticket)
    }
    unsafe callOutgoingOpen(connection)
    guard let connection = unsafe table.find(key), unsafe connection.pointee.isUsable else {
      // on_open has closed it again.
      return give(.fails("closed"), to: connect.ticket)
    }
    // Its on_open has cancelled the task that it is for.
    guard isWaiting(connect.ticket) else { return unsafe close(connection, .script("cancelled")) }
    unsafe resumeReading(connection)
    unsafe give(.object(connection.pointee.object), to: connect.ticket)
  }

  private func callOutgoingOpen(_ connection: UnsafeMutablePointer<Connection>) {
    let entry = unsafe outgoing[connection.pointee.handlers]
    guard entry.handlers.open.exists else { return }
    unsafe connection.pointee.flags.insert(.busy)
    // As a message's: what it returns does not matter, since the script asked for this connection itself.
    let owner = unsafe TaskOwner(
      kind: .message, connection: connection.pointee.key, codeGeneration: entry.codeGeneration)
    unsafe start(entry.handlers.open, LuaArguments(.reference(connection.pointee.object)), owner)
  }

  /// Without on_message nobody takes the messages of an outgoing connection but `receive`: until then they wait.
  func listenOrHold(_ connection: UnsafeMutablePointer<Connection>) {
    guard unsafe connection.pointee.flags.contains(.outgoing) else { return }
    if unsafe handlers(of: connection).message.exists {
      unsafe connection.pointee.flags.remove(.unheard)
    } else {
      unsafe connection.pointee.flags.insert(.unheard)
    }
  }

  // MARK: Handlers

  /// The handlers of a connection: its listener's, or its own where the script has made it.
  @inline(__always)
  func handlers(of connection: UnsafeMutablePointer<Connection>) -> HandlerSet {
    let own = unsafe connection.pointee.handlers
    return unsafe own < 0 ? listeners[Int(connection.pointee.listener)].handlers : outgoing[own].handlers
  }

  /// The generation whose code those handlers are.
  @inline(__always)
  func codeGeneration(of connection: UnsafeMutablePointer<Connection>) -> Int {
    let own = unsafe connection.pointee.handlers
    return own < 0 ? generationNumber : outgoing[own].codeGeneration
  }
}
