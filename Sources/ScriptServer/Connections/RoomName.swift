// The name of a room: the bytes that the script gave. Two names are one room when their bytes are equal, and never else: text
// would not do, since different bytes that are no UTF-8, or spell the same letters in different ways, count as one there.

/// A room's name. Costs an allocation, so it is made once for each call of a script.
struct RoomName: Hashable, Sendable {
  /// The longest name of a room that can be joined, as of a dictionary.
  static let bytesMax = 255

  /// As scripts see it.
  let bytes: [UInt8]

  /// A name as a script gave it.
  init(_ bytes: UnsafeRawBufferPointer) { self.bytes = unsafe Array(bytes) }

  /// A name as an operator gave it.
  init(text: String) { bytes = Array(text.utf8) }

  /// For people.
  var text: String { String(decoding: bytes, as: UTF8.self) }
}

/// The names that a worker's script used of late, so that a broadcast to the same few rooms makes no name anew.
struct RecentRoomNames: ~Copyable {
  /// More rooms than a handler broadcasts to in one go; a power of two.
  private static let placesCount = 64
  /// Longer names are made each time, so that what is kept stays small: 64 names of 64 bytes.
  private static let keptBytesMax = 64

  private var names = [RoomName?](repeating: nil, count: placesCount)

  /// The name of these bytes.
  mutating func name(_ bytes: UnsafeRawBufferPointer) -> RoomName {
    guard bytes.count <= Self.keptBytesMax else { return unsafe RoomName(bytes) }
    // FNV-1a.
    var hash: UInt64 = 0xcbf2_9ce4_8422_2325
    for index in 0..<bytes.count { unsafe hash = (hash ^ UInt64(bytes[index])) &* 0x0000_0100_0000_01b3 }
    let place = Int(truncatingIfNeeded: hash ^ hash >> 32) & (Self.placesCount - 1)
    if let known = names[place], unsafe known.isSame(as: bytes) { return known }
    let name = unsafe RoomName(bytes)
    names[place] = name
    return name
  }
}

extension RoomName {
  fileprivate func isSame(as other: UnsafeRawBufferPointer) -> Bool {
    guard bytes.count == other.count else { return false }
    for index in bytes.indices where unsafe bytes[index] != other[index] { return false }
    return true
  }
}
