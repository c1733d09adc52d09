// Broadcasts: what goes to all connections, or to all of a room, on every worker. What a turn broadcasts to the same connections is
// gathered and spread at the turn's end, connection by connection: each is looked at once, and a queue that is empty is passed
// by. Whatever else would be seen before it (a message to one of them, a room joined or left, an end) has it spread first, so that
// nobody can tell.

import Codecs
import CompletionIO
import LuaRuntime

extension Worker {
  /// Frames of a batch from this size on are shared between the queues instead of copied.
  static let sharedBytesMin = GatheredBroadcast.largeBytesMin

  // MARK: Gathering

  /// Sends `message` to every connection of every worker, or of one room.
  func broadcast(_ message: UnsafeRawBufferPointer, room: RoomName?, except: ConnectionID?) {
    if server.workers.count > 1 {
      // What was sent to single connections before comes first.
      if !sendsToOthers.isEmpty { postSends() }
      if !gatheredForOthers.takes(message.count, room: room, except: except) { postGathered() }
      unsafe gatheredForOthers.append(message, room: room, except: except)
      if gatheredForOthers.isFull { postGathered() }
    }
    if !gathered.takes(message.count, room: room, except: except) { spread(sendsNow: false) }
    unsafe gathered.append(message, room: room, except: except)
    spreadIfDue()
  }

  /// Sends what another worker's scripts have broadcast to the connections of this one.
  func received(_ packet: BroadcastPacket) {
    if !gathered.takes(packet) { spread(sendsNow: false) }
    gathered.append(packet)
    spreadIfDue()
  }

  private func spreadIfDue() {
    // A codec in Lua frames while the broadcast's own code still runs.
    if gathered.isFull || codecs.hasScripted { spread(sendsNow: false) }
  }

  /// Hands the other workers what this turn has broadcast, or sent to their connections, so far: one message, and one wake-up, for all
  /// of it. To be called before anything else is sent to another worker, which must come behind it. Of both there is never some: each
  /// posts the other before.
  func postGathered() {
    if !sendsToOthers.isEmpty { postSends() }
    if gatheredForOthers.isEmpty { return }
    let packet = gatheredForOthers.packet()
    let bytes = unsafe packet.records.bytes.count
    for worker in server.workers where worker !== self {
      if !worker.mailbox.postDroppable(.broadcast(packet), bytes: bytes) { counters.dropped.add(packet.count) }
    }
    gatheredForOthers.removeAll()
  }

  /// Whether what is gathered goes to this connection, too.
  func isSpreadTo(_ connection: UnsafeMutablePointer<Connection>) -> Bool {
    guard !gathered.isEmpty, unsafe connection.pointee.phase == .open, unsafe id(of: connection) != gathered.except
    else {
      return false
    }
    guard let room = gathered.room else { return unsafe connection.pointee.openIndex >= 0 }
    return unsafe rooms.contains(connection, room: room)
  }

  /// Spreads what is gathered if it goes to this connection, about which something is going to change.
  @inline(__always)
  func spreadBeforeChange(of connection: UnsafeMutablePointer<Connection>) {
    if !gathered.isEmpty, unsafe isSpreadTo(connection) { spread(sendsNow: false) }
  }

  /// As above for a connection that may have ended, and may after it.
  @inline(__always)
  func spreadBeforeUse(of key: HandleKey) {
    if !gathered.isEmpty, let connection = unsafe table.find(key) { unsafe spreadBeforeChange(of: connection) }
  }

  /// Spreads what is gathered if it may bring this connection to a limit at which its next message has to wait, or never is heard.
  @inline(__always)
  func spreadBeforeNext(of connection: UnsafeMutablePointer<Connection>) {
    if !gathered.isEmpty { unsafe spreadIfMuch(for: connection) }
  }

  private func spreadIfMuch(for connection: UnsafeMutablePointer<Connection>) {
    let limit = unsafe limit(of: connection)
    guard limit.policy == .close || limit.policy == .pause else { return }
    if unsafe connection.pointee.output.count + gathered.framedBytesMax > limit.unwatchedBytes {
      unsafe spreadBeforeChange(of: connection)
    }
  }

  /// Spreads what is gathered if it goes to this room, whose members are going to change.
  func spread(before room: RoomName) {
    if !gathered.isEmpty, gathered.room == room { spread(sendsNow: false) }
  }

  // MARK: Spreading

  /// Hands what is gathered to its connections. `sendsNow`: the turn is at its end, so that who has nothing else to get may get it
  /// at once.
  func spread(sendsNow: Bool) {
    if gathered.isEmpty { return }
    // A codec in Lua may broadcast in its turn: that is gathered anew.
    var batch = GatheredBroadcast()
    swap(&batch, &gathered)
    var slots = visitedSlots
    visitedSlots = []
    slots.removeAll(keepingCapacity: true)
    if let room = batch.room { rooms.appendSlots(room, to: &slots) } else { slots.append(contentsOf: table.open) }
    let except = batch.except.map { $0.workerIndex == index ? $0.key : .none } ?? .none
    // Those of another codec than the first one's come in a round of their own, so that each codec frames once.
    var others = slotsOfOtherCodecs
    slotsOfOtherCodecs = []
    while !slots.isEmpty {
      spread(&batch, to: slots, leaving: &others, except: except, sendsNow: sendsNow)
      swap(&slots, &others)
      others.removeAll(keepingCapacity: true)
    }
    visitedSlots = slots
    slotsOfOtherCodecs = others
    batch.removeAll()
    if gathered.isEmpty { swap(&batch, &gathered) }
  }

  /// Hands a batch to the connections in `slots`, but for those whose codec is not the first one's: they are added to `others`.
  @inline(__always)
  private func spread(
    _ batch: inout GatheredBroadcast, to slots: [UInt32], leaving others: inout [UInt32], except: HandleKey,
    sendsNow: Bool
  ) {
    var codec: UInt16?
    for index in slots.indices {
      if index + 1 < slots.count { prefetch(slots[index + 1]) }
      let connection = unsafe table.inSlot(slots[index])
      guard unsafe connection.pointee.phase == .open, unsafe connection.pointee.key != except else { continue }
      let own = unsafe connection.pointee.codec
      if own != codec, codecs.isBuiltin(own) {
        if codec != nil {
          others.append(slots[index])
          continue
        }
        codec = own
      }
      unsafe deliver(&batch, to: connection, sendsNow: sendsNow)
    }
  }

  /// Has the processor fetch the next connection while the kernel takes what the one before it gets.
  private func prefetch(_ slot: UInt32) {
    table.prefetch(slot)
    port.prefetch(slot)
  }

  @inline(__always)
  private func deliver(
    _ batch: inout GatheredBroadcast, to connection: UnsafeMutablePointer<Connection>, sendsNow: Bool
  ) {
    guard case .builtin(let codec) = unsafe codecs[connection.pointee.codec],
      let frames = unsafe batch.framed(by: codec, connection.pointee.codec), frames.count > 0,
      unsafe batch.isLarge || isUnwatched(connection, adding: frames.count)
    else {
      // One by one, as the output limit's policy wants them.
      return unsafe batch.forEachMessage { message in _ = unsafe send(connection, message) }
    }
    if batch.isLarge { return unsafe queue(batch.shared(), for: connection) }
    var rest = unsafe frames
    if sendsNow, unsafe connection.pointee.output.isEmpty {
      guard case .completed(let sent) = unsafe port.sendNow(frames, on: connection.pointee.key) else {
        return unsafe lost(connection, .reset)
      }
      unsafe connection.pointee.bytesOut += UInt64(sent)
      counters.bytesOut.add(sent)
      unsafe rest = UnsafeRawBufferPointer(rebasing: frames[sent...])
    }
    unsafe connection.pointee.messagesOut &+= UInt32(batch.count)
    counters.messagesOut.add(batch.count)
    if unsafe !rest.isEmpty { unsafe queue(rest, of: &batch, for: connection) }
  }

  /// Queues one large message, within the output limit.
  private func queue(_ shared: SharedBytes, for connection: UnsafeMutablePointer<Connection>) {
    guard unsafe admit(connection, shared.bytes.count) == .queued else { return }
    unsafe connection.pointee.output.append(shared, pool: pool)
    unsafe queued(connection, shared.bytes.count)
  }

  /// Queues the end of a batch's frames: all of them may be shared, a part is copied.
  private func queue(
    _ bytes: UnsafeRawBufferPointer, of batch: inout GatheredBroadcast, for connection: UnsafeMutablePointer<Connection>
  ) {
    if bytes.count >= Self.sharedBytesMin, bytes.count == batch.framesCount {
      unsafe connection.pointee.output.append(batch.shared(), pool: pool)
    } else {
      let room = unsafe connection.pointee.output.reserve(bytes.count, pool: pool)
      unsafe room.copyMemory(from: bytes.baseAddress!, byteCount: bytes.count)
    }
    unsafe markDirty(connection)
  }
}
