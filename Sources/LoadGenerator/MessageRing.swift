// The bytes that every connection sends, laid out so that any run of messages lies in one piece, and the comparison of what came
// back with them. Must never know connections or time.

import Codecs
import Glibc

/// Messages in their frames, one after the other, that repeat after `periodBytes`.
///
/// Neighbours differ and each connection begins at another one, so an echo that was lost, doubled, exchanged or sent to the wrong
/// client does not pass for the right one. Comparing is then one memcmp(3) for all that a read brought.
@safe
struct MessageRing: ~Copyable {
  /// Different messages, if they are short: a prime, so that no usual number of messages in flight is a multiple of it.
  private static let messagesMax = 61
  /// Different long messages are fewer, so that they stay in the processor's cache.
  private static let periodBytesAim = 64 * 1024

  /// One message with what its codec adds.
  let frameBytes: Int
  /// How many messages differ.
  let messageCount: Int
  let payloadBytes: Int
  private let payloadOffset: Int
  private let memory: UnsafeMutableRawBufferPointer

  /// The messages of a checked plan.
  init(_ plan: LoadPlan) throws(LoadError) {
    let framing: Framing
    do { framing = try plan.codec.framing(payloadCount: plan.payloadBytes) } catch { throw LoadError("\(error)") }
    payloadBytes = plan.payloadBytes
    payloadOffset = framing.prefixCount
    frameBytes = payloadBytes + framing.overhead
    messageCount = plan.text != nil ? 1 : max(2, min(Self.messagesMax, Self.periodBytesAim / frameBytes))
    let count = messageCount + plan.inFlight
    unsafe memory = .allocate(byteCount: count * frameBytes, alignment: 64)
    var payload = [UInt8](repeating: 0, count: payloadBytes)
    for index in 0..<count {
      Self.fill(&payload, of: plan, message: index % messageCount)
      let start = unsafe memory.baseAddress! + index * frameBytes
      _ = unsafe payload.withUnsafeBytes { unsafe framing.copyFrame(of: $0, to: start) }
    }
  }

  deinit { unsafe memory.deallocate() }

  var periodBytes: Int { messageCount * frameBytes }

  /// `count` bytes from `position`, which is below `periodBytes`; at most one window of messages.
  func bytes(from position: Int, count: Int) -> UnsafeRawBufferPointer {
    unsafe UnsafeRawBufferPointer(rebasing: memory[position..<position + count])
  }

  /// The message whose frame begins at `position`, without its frame.
  func payload(at position: Int) -> UnsafeRawBufferPointer {
    unsafe bytes(from: position + payloadOffset, count: payloadBytes)
  }

  /// `position` moved on by `count` bytes.
  func advanced(_ position: Int, by count: Int) -> Int { (position + count) % periodBytes }

  /// Whether `received` is what is sent from `position` on.
  func matches(_ received: UnsafeRawBufferPointer, at position: Int) -> Bool {
    var position = position
    var done = 0
    while done < received.count {
      let count = unsafe min(received.count - done, memory.count - position)
      if unsafe memcmp(received.baseAddress! + done, memory.baseAddress! + position, count) != 0 { return false }
      done += count
      position = (position + count) % periodBytes
    }
    return true
  }

  /// Letters and digits only, which no codec takes for an end; message n begins with the n-th of them.
  private static func fill(_ payload: inout [UInt8], of plan: LoadPlan, message: Int) {
    if let text = plan.text { return payload = text }
    let letters = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789".utf8)
    for index in payload.indices { payload[index] = letters[(message + index) % letters.count] }
  }
}
