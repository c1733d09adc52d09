// What one thread tells another: messages in order, with one wake-up for as many as come together, and urgent ones ahead of them.
// The only way, besides shared dictionaries, counters and the reload barrier, in which data crosses threads.

import CompletionIO

/// A queue with many senders and one receiver.
final class Mailbox<Message: Sendable>: @unchecked Sendable {
  private let lock = ThreadLock()
  private var messages: [Message] = []
  private var urgent: [Message] = []
  private var bytes = 0
  private var isOpen = true
  private let port: CompletionPort

  /// Droppable bytes that may wait for a receiver that does not get to them: as much as one client's hard output limit
  /// eight times over; a receiver so far behind would only deliver stale news.
  private static var bytesMax: Int { 64 << 20 }
  /// Messages that may wait, droppable or not; each is about 100 bytes.
  private static var messagesMax: Int { 1 << 20 }

  /// The key of the packet that tells the receiver's port of new messages.
  static var packetKey: UInt64 { 1 }
  /// The key of the packet that tells it of urgent ones.
  static var urgentPacketKey: UInt64 { 2 }

  /// A mailbox whose receiver waits on `port`.
  init(port: CompletionPort) { self.port = port }

  /// Queues a message. False when the receiver has ended.
  @discardableResult
  func post(_ message: Message) -> Bool { put(message, bytes: 0) }

  /// Queues a message that carries `bytes` bytes, for which `hasRoom` was asked before. False when the receiver has ended.
  @discardableResult
  func post(_ message: Message, bytes: Int) -> Bool { put(message, bytes: bytes) }

  /// Queues a message that carries `bytes` bytes and may be dropped. False when too much waits already.
  func postDroppable(_ message: Message, bytes: Int) -> Bool { put(message, bytes: max(bytes, 1), isDroppable: true) }

  /// Whether `bytes` more bytes that may be dropped would be queued now.
  func hasRoom(forBytes bytes: Int) -> Bool { lock.withLock { isOpen && takes(max(bytes, 1)) } }

  private func takes(_ added: Int) -> Bool { bytes + added <= Self.bytesMax && messages.count < Self.messagesMax }

  private func put(_ message: Message, bytes added: Int, isDroppable: Bool = false) -> Bool {
    let wasEmpty: Bool? = lock.withLock {
      guard isOpen, !isDroppable || takes(added) else { return nil }
      messages.append(message)
      bytes += added
      return messages.count == 1
    }
    guard let wasEmpty else { return false }
    if wasEmpty { port.post(Packet(key: Self.packetKey, value: 0)) }
    return true
  }

  /// Queues a message for `takeUrgent`, ahead of all others: an operator must get through where much waits. False when the receiver
  /// has ended.
  @discardableResult
  func postUrgent(_ message: Message) -> Bool {
    let isQueued = lock.withLock {
      if isOpen { urgent.append(message) }
      return isOpen
    }
    if isQueued { port.post(Packet(key: Self.urgentPacketKey, value: 0)) }
    return isQueued
  }

  /// The urgent messages that wait, in order.
  func takeUrgent() -> [Message] {
    lock.withLock {
      defer { urgent = [] }
      return urgent
    }
  }

  /// How often a sender or the receiver had to wait for another thread.
  var contentions: Int { lock.contentions }

  /// Whether the receiver has ended.
  var isClosed: Bool { lock.withLock { !isOpen } }

  /// Moves all waiting messages behind those in `batch`; returns how many bytes they carry.
  @discardableResult
  func drain(into batch: inout [Message]) -> Int {
    lock.withLock {
      defer { bytes = 0 }
      if batch.isEmpty {
        swap(&batch, &messages)
      } else {
        batch.append(contentsOf: messages)
        messages.removeAll(keepingCapacity: true)
      }
      return bytes
    }
  }

  /// Refuses all later messages and returns what still waited, the urgent ones first.
  func close() -> [Message] {
    lock.withLock {
      isOpen = false
      defer {
        urgent = []
        messages = []
      }
      return urgent + messages
    }
  }
}
