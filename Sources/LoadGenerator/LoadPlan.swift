// What a load is to be, checked once before anything is opened. Numbers only; must never open a socket, read a clock or know how
// the load is made.

import Codecs

/// Why a load cannot be made as asked, as a sentence for the user.
package struct LoadError: Error, Equatable, Sendable {
  package let message: String

  package init(_ message: String) { self.message = message }
}

/// A load to put on a server.
package struct LoadPlan: Equatable, Sendable {
  /// What the server is expected to answer.
  package enum Expectation: String, CaseIterable, Sendable {
    /// Each message comes back as it was sent, in order.
    case echo
    /// Nothing is waited for; what comes is dropped.
    case none
  }

  /// One client address has about 28,000 ports for one server address (ip_local_port_range in ip(7)), at most 64,512.
  package static let connectionsAllowed = 1...60_000
  /// The longest message that a codec of the server takes by default is 1 MiB; this leaves room for larger settings.
  package static let messageBytesAllowed = 0...(16 << 20)
  /// More in flight than this on one connection only fills the kernel's buffers.
  package static let inFlightAllowed = 1...65_536
  /// What one connection sends at once: held in memory once for all of them, so it may be large, but not as large as all memory.
  package static let windowBytesMax = 64 << 20
  /// Messages in flight on all connections: the time when each was sent takes 8 bytes, so 64 MiB in all.
  package static let inFlightTotalMax = 8 << 20
  /// From a tenth of a second, in which a server does thousands of echoes, to a day.
  package static let secondsAllowed = 0.1...86_400.0
  /// From a message in a thousand seconds to more than one core can send.
  package static let rateAllowed = 0.001...100_000_000.0

  package var connections = 50
  /// Bytes of a message without what the codec adds; of no account when there is a text.
  package var messageBytes = 64
  /// Every message's bytes; nil makes messages that differ from their neighbours.
  package var text: [UInt8]?
  /// Messages that a connection has on their way at once.
  package var inFlight = 1
  package var seconds: Double = 10
  /// Messages of all connections in a second, due at fixed times (an open loop); nil sends when the answers are there.
  package var rate: Double?
  package var codec = Codec.line(maxLength: Codec.lineMaxLengthDefault)
  package var expectation = Expectation.echo

  package init() {}

  /// Bytes of one message without what the codec adds.
  package var payloadBytes: Int { text?.count ?? messageBytes }

  /// Throws what is wrong with the plan and what is allowed, in the words of the command line.
  package func check() throws(LoadError) {
    try Self.check("--connections", connections, allowed: Self.connectionsAllowed)
    try Self.check("--size", messageBytes, allowed: Self.messageBytesAllowed)
    try Self.check("--pipeline", inFlight, allowed: Self.inFlightAllowed)
    guard Self.secondsAllowed.contains(seconds) else {
      throw LoadError("--duration takes seconds from 0.1 to 86400, not \(seconds)")
    }
    if let rate {
      guard Self.rateAllowed.contains(rate) else {
        throw LoadError("--rate takes messages per second from 0.001 to 100000000, not \(rate)")
      }
    }
    guard connections * inFlight <= Self.inFlightTotalMax else {
      throw LoadError("--connections times --pipeline may be at most \(Self.inFlightTotalMax)")
    }
    try checkMessage()
  }

  private func checkMessage() throws(LoadError) {
    let framed: Int
    do {
      framed = try codec.framedCount(payloadBytes)
    } catch {
      throw LoadError("\(error)")
    }
    guard framed > 0 else { throw LoadError("a message of this codec needs at least 1 byte") }
    guard framed <= Self.windowBytesMax / inFlight else {
      throw LoadError("\(inFlight) messages of \(framed) bytes at once are more than \(Self.windowBytesMax >> 20) MiB")
    }
    guard payloadBytes <= codec.maxLength else {
      throw LoadError("a message of \(payloadBytes) bytes is longer than the codec takes, \(codec.maxLength) bytes")
    }
    guard let text else { return }
    switch codec {
    case .line where text.contains(UInt8(ascii: "\n")) || text.last == UInt8(ascii: "\r"):
      throw LoadError("--message with the codec line cannot hold a line end")
    case .delimiter(let delimiter, _) where delimiter.occurs(in: text):
      throw LoadError("--message cannot hold the codec's delimiter")
    default: break
    }
  }

  private static func check(_ option: String, _ given: Int, allowed: ClosedRange<Int>) throws(LoadError) {
    guard allowed.contains(given) else {
      throw LoadError("\(option) takes \(allowed.lowerBound) to \(allowed.upperBound), not \(given)")
    }
  }
}

extension Delimiter {
  /// Whether the delimiter stands anywhere in the text.
  fileprivate func occurs(in text: [UInt8]) -> Bool {
    let own = unsafe withUnsafeBytes { unsafe Array($0) }
    guard text.count >= own.count else { return false }
    return (0...(text.count - own.count)).contains { text[$0..<$0 + own.count].elementsEqual(own) }
  }
}
