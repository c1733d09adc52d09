// What code says to connections before it is live: while it loads beside the running generation, and in its on_restore. It is said once
// the code is live, and never where a reload fails.

import LuaRuntime

/// One such thing.
enum AheadSaying {
  case broadcast([UInt8], room: RoomName?, except: ConnectionID?)
  case send(ConnectionID, [UInt8], framed: Bool)
  case close(ConnectionID, reason: String)
}

/// All of them, in order.
struct AheadSayings {
  private var sayings: [AheadSaying] = []
  private var bytes = 0

  /// Bytes that are kept, and things: what is said as a server's code changes is a notice, no stream.
  private static let bytesMax = 16 << 20
  private static let sayingsMax = 1 << 16

  /// Keeps one; false when there is too much.
  mutating func keep(_ saying: AheadSaying, bytes added: Int) -> Bool {
    guard sayings.count < Self.sayingsMax, bytes + added <= Self.bytesMax else { return false }
    sayings.append(saying)
    bytes += added
    return true
  }

  /// Takes all out.
  mutating func take() -> [AheadSaying] {
    defer { self = AheadSayings() }
    return sayings
  }
}

extension Worker {
  /// Whether the code that runs is not live yet, and another's connections are there.
  var isAheadOfLive: Bool { beginning != nil && running == nil && generation != nil }

  /// Keeps what code says ahead of its time.
  func sayLater(_ saying: AheadSaying, bytes: Int) -> SendResult {
    if sayings.keep(saying, bytes: bytes) { return .queued }
    counters.dropped.add(1)
    return .overflow
  }

  /// The code is live: what it has said is said.
  func saySayings() {
    for saying in sayings.take() {
      switch saying {
      case .broadcast(let bytes, let room, let except):
        unsafe bytes.withUnsafeBytes { unsafe broadcast($0, room: room, except: except) }
      case .send(let id, let bytes, let framed):
        _ = unsafe bytes.withUnsafeBytes { unsafe send($0, to: id, framed: framed) }
      case .close(let id, let reason): _ = close(id, reason: reason)
      }
      settle()
    }
  }
}
