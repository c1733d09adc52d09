// How many messages a client may send in a time (`message_rate`): the tokens of its bucket, and holding it back without them.
// A message costs nothing here: the bucket is compared with the count of messages that is kept anyway.

import CompletionIO
import LuaRuntime

extension Worker {
  /// How long a client that was held back waits at least: tokens that come faster are collected, so that a fast rate does not
  /// wake the worker for each message.
  private static let holdNanosecondsMin: UInt64 = 10_000_000

  /// Fills a new connection's bucket, or one whose listener has got another rate.
  func startRate(_ connection: UnsafeMutablePointer<Connection>) {
    guard let rate = unsafe listeners[Int(connection.pointee.listener)].limits.messages else { return }
    unsafe connection.pointee.messagesAllowed = connection.pointee.messagesIn &+ UInt32(rate.burst)
    unsafe connection.pointee.rateRefilledAt = now
  }

  /// How many messages the connection may send now; `most` where its listener has no rate.
  @inline(__always)
  func messagesLeft(_ connection: UnsafeMutablePointer<Connection>, most: Int) -> Int {
    guard let rate = unsafe listeners[Int(connection.pointee.listener)].limits.messages else { return most }
    return unsafe min(refill(connection, rate), most)
  }

  /// Adds the tokens that time has brought; the number there is, below 0 when a handler took more by `receive`.
  private func refill(_ connection: UnsafeMutablePointer<Connection>, _ rate: Rate) -> Int {
    let left = unsafe Int(Int32(bitPattern: connection.pointee.messagesAllowed &- connection.pointee.messagesIn))
    let elapsed = unsafe now > connection.pointee.rateRefilledAt ? now - connection.pointee.rateRefilledAt : 0
    let came = elapsed / rate.intervalNanoseconds
    if came == 0 { return left }
    let sum = min(left + Int(clamping: min(came, UInt64(2 * Rate.burstMax))), rate.burst)
    unsafe connection.pointee.messagesAllowed = connection.pointee.messagesIn &+ UInt32(truncatingIfNeeded: sum)
    // What is left over of a full bucket is lost; else the begun token goes on filling.
    unsafe connection.pointee.rateRefilledAt =
      sum == rate.burst ? now : connection.pointee.rateRefilledAt &+ came &* rate.intervalNanoseconds
    return sum
  }

  /// The connection may hand over no more for now: it goes on in the next turn, or when its rate allows for more, or ends.
  func outOfMessages(_ connection: UnsafeMutablePointer<Connection>) -> Bool {
    if unsafe messagesLeft(connection, most: 1) > 0 {
      unsafe markReady(connection)
    } else if unsafe listeners[Int(connection.pointee.listener)].limits.closesOverRate {
      unsafe closeOverRate(connection)
    } else {
      unsafe hold(connection)
    }
    return false
  }

  /// Ends the connection if there is indeed one message more than its rate allows for.
  private func closeOverRate(_ connection: UnsafeMutablePointer<Connection>) {
    switch unsafe take(connection, .message) {
    case .incomplete, .ended: return
    case .failed(let reason): return unsafe close(connection, reason)
    case .value(let reference): lua.release(reference)
    case .bytes: break
    }
    unsafe close(connection, .messageRate)
  }

  /// The client has used its messages up: nothing of it is handed over or read until there is time for more.
  private func hold(_ connection: UnsafeMutablePointer<Connection>) {
    if unsafe connection.pointee.flags.contains(.rateHeld) { return }
    unsafe connection.pointee.flags.insert(.rateHeld)
    unsafe scheduleOpenDeadline(connection)
  }

  /// When a client that is held back may go on.
  func holdEnd(_ connection: UnsafeMutablePointer<Connection>) -> UInt64 {
    guard let rate = unsafe listeners[Int(connection.pointee.listener)].limits.messages else { return 0 }
    let needed = unsafe -min(
      Int(Int32(bitPattern: connection.pointee.messagesAllowed &- connection.pointee.messagesIn)), 0)
    let wait = rate.intervalNanoseconds &* UInt64(needed + 1)
    return unsafe connection.pointee.rateRefilledAt &+ max(wait, min(Self.holdNanosecondsMin, rate.burstNanoseconds))
  }

  /// Lets a client that was held back go on.
  func release(held connection: UnsafeMutablePointer<Connection>) {
    unsafe connection.pointee.flags.remove(.rateHeld)
    // The time it was held is not the client's idleness.
    unsafe connection.pointee.lastMessageAt = now
    unsafe markReady(connection)
  }
}
