// Messages of one turn for single connections of one other worker, gathered: one allocation, one lock and at most one wake-up for all
// of them. Its memory is used again in the next turn.
// Knows no connection and no mailbox: when they go is the worker's to decide.

/// Messages for connections of one worker on their way there.
final class SendPacket: Sendable {
  private let records: SharedBytes
  /// How many messages there are.
  let count: Int

  init(records: SharedBytes, count: Int) {
    self.records = records
    self.count = count
  }

  /// The size of it in memory.
  var byteCount: Int { unsafe records.bytes.count }

  /// Calls `body` with each message in order: whom it is for, its bytes, and whether they are to be framed.
  func forEachMessage(_ body: (ConnectionID, UnsafeRawBufferPointer, _ framed: Bool) -> Void) {
    let bytes = unsafe records.bytes
    var next = 0
    while next < bytes.count {
      let header = unsafe bytes.loadUnaligned(fromByteOffset: next, as: SendHeader.self)
      next += MemoryLayout<SendHeader>.size
      unsafe body(
        ConnectionID(rawValue: header.id), UnsafeRawBufferPointer(rebasing: bytes[next..<next + header.count]),
        header.isFramed)
      next += header.count
    }
  }
}

/// What lies in front of each message.
private struct SendHeader {
  let id: Int64
  /// Twice the message's bytes, and one more where they are to be framed.
  private let packed: Int

  init(_ id: ConnectionID, count: Int, framed: Bool) {
    self.id = id.rawValue
    packed = count << 1 | (framed ? 1 : 0)
  }

  var count: Int { packed >> 1 }
  var isFramed: Bool { packed & 1 != 0 }
}

/// Messages that wait for the turn's end. Owned by the sending worker's thread.
@safe
struct GatheredSends: ~Copyable {
  private var records = ByteRoom()
  /// How many messages wait.
  private(set) var count = 0

  /// Bytes gathered before they go in the midst of a turn.
  private static let bytesMax = 65536
  /// Messages gathered before they go: what another worker handles without a look at its own clients.
  private static let messagesMax = 256
  /// Messages from this size on go alone, so that they are copied once.
  static let largeBytesMin = 4096

  var isEmpty: Bool { count == 0 }
  /// Whether they are to go now.
  var isFull: Bool { count >= Self.messagesMax || records.count >= Self.bytesMax }

  /// Adds a message for a connection.
  mutating func append(_ message: UnsafeRawBufferPointer, to id: ConnectionID, framed: Bool) {
    count += 1
    unsafe withUnsafeBytes(of: SendHeader(id, count: message.count, framed: framed)) { unsafe records.append($0) }
    unsafe records.append(message)
  }

  /// All messages, which are gathered no longer.
  mutating func takePacket() -> SendPacket {
    let packet = unsafe SendPacket(records: SharedBytes(copying: records.bytes), count: count)
    count = 0
    records.removeAll(keepingUpTo: Self.bytesMax)
    return packet
  }
}
