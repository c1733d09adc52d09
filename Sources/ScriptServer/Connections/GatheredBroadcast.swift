// Broadcasts of one turn to the same connections, gathered: the messages one behind the other, and what they look like framed by
// a codec, made once for all connections that have it. Its memory is used again in the next turn.
// Knows no connection: whom it goes to, and when, is the worker's.

import Codecs

/// Messages that wait to be spread. Owned by the worker's thread.
@safe
struct GatheredBroadcast: ~Copyable {
  /// Whom they are for: the members of a room, or everybody.
  private(set) var room: RoomName?
  /// Who does not get them.
  private(set) var except: ConnectionID?
  /// How many messages wait.
  private(set) var count = 0
  /// The messages, each behind its length.
  private var records = ByteRoom()
  /// All of them, framed by the codec with this index; nil where none has been asked for, or it cannot frame one of them.
  private var frames = ByteRoom()
  private var framedFor: UInt16?
  private var canFrame = false
  /// The same bytes for queues to share.
  private var sharedFrames: SharedBytes?

  /// Bytes gathered before they are spread in the midst of a turn: one usual read of a client, so that what one client sends at
  /// once is spread at once, and little memory is kept.
  static let bytesMax = 65536
  /// Memory kept between turns: what a batch of that size takes with its framing.
  private static let keptBytesMax = 2 * bytesMax

  var isEmpty: Bool { count == 0 }
  /// Messages from this size on go alone, so that each queue can share them: also one whose limit wants them one by one.
  static let largeBytesMin = 4096
  /// Whether it is one large message.
  var isLarge: Bool { count == 1 && records.count >= Self.largeBytesMin + MemoryLayout<Int>.size }
  /// Whether it is to be spread now.
  var isFull: Bool { records.count >= Self.bytesMax || isLarge }

  /// As many bytes at most does it have framed by any codec, none of which adds more than 24 to a message.
  var framedBytesMax: Int { records.count + count * (24 - MemoryLayout<Int>.size) }
  /// How many bytes `framed` returned last.
  var framesCount: Int { frames.count }

  /// Whether a message of this size for this room with this exception can go with those that wait.
  func takes(_ bytes: Int, room: RoomName?, except: ConnectionID?) -> Bool {
    isEmpty || bytes < Self.largeBytesMin && self.except == except && self.room == room
  }

  /// Whether what another worker has gathered can go with those that wait.
  func takes(_ packet: BroadcastPacket) -> Bool {
    let bytes = unsafe packet.count > 1 ? 0 : packet.records.bytes.count - MemoryLayout<Int>.size
    return takes(bytes, room: packet.room, except: packet.except)
  }

  /// Adds a message that it takes.
  mutating func append(_ message: UnsafeRawBufferPointer, room: RoomName?, except: ConnectionID?) {
    begin(room, except)
    count += 1
    unsafe withUnsafeBytes(of: message.count) { unsafe records.append($0) }
    unsafe records.append(message)
  }

  /// Adds what another worker has gathered, which it takes.
  mutating func append(_ packet: BroadcastPacket) {
    begin(packet.room, packet.except)
    count += packet.count
    unsafe records.append(packet.records.bytes)
  }

  /// A copy of all messages for other workers.
  func packet() -> BroadcastPacket {
    unsafe BroadcastPacket(records: SharedBytes(copying: records.bytes), count: count, room: room, except: except)
  }

  private mutating func begin(_ room: RoomName?, _ except: ConnectionID?) {
    forgetFrames()
    if !isEmpty { return }
    self.room = room
    self.except = except
  }

  /// Forgets the messages; what is larger than usual is given back.
  mutating func removeAll() {
    count = 0
    room = nil
    forgetFrames()
    records.removeAll(keepingUpTo: Self.keptBytesMax)
    frames.removeAll(keepingUpTo: Self.keptBytesMax)
  }

  /// Calls `body` with each message in order.
  func forEachMessage(_ body: (UnsafeRawBufferPointer) -> Void) {
    let bytes = unsafe records.bytes
    var next = 0
    while next < bytes.count {
      let count = unsafe bytes.loadUnaligned(fromByteOffset: next, as: Int.self)
      next += MemoryLayout<Int>.size
      unsafe body(UnsafeRawBufferPointer(rebasing: bytes[next..<next + count]))
      next += count
    }
  }

  /// All messages as the codec at `index` of the worker's table frames them, valid until the next change; nil when it cannot
  /// frame one of them.
  mutating func framed(by codec: Codec, _ index: UInt16) -> UnsafeRawBufferPointer? {
    if framedFor != index {
      forgetFrames()
      framedFor = index
      canFrame = frame(by: codec)
    }
    return unsafe canFrame ? frames.bytes : nil
  }

  /// What `framed` returned last, for queues to share.
  mutating func shared() -> SharedBytes {
    if let sharedFrames { return sharedFrames }
    let shared = unsafe SharedBytes(copying: frames.bytes)
    sharedFrames = shared
    return shared
  }

  private mutating func frame(by codec: Codec) -> Bool {
    var total = 0
    var fits = true
    unsafe forEachMessage { message in
      guard let count = try? codec.framedCount(message.count) else { return fits = false }
      total += count
    }
    if !fits { return false }
    var end = unsafe frames.reserve(total)
    unsafe forEachMessage { message in
      guard let count = try? codec.framedCount(message.count) else { return }
      unsafe codec.writeFrame(of: message, to: end)
      unsafe end += count
    }
    return true
  }

  private mutating func forgetFrames() {
    framedFor = nil
    sharedFrames = nil
    frames.removeAll(keepingUpTo: .max)
  }
}
