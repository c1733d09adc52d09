// The name of a room: the bytes that the script gave. Two names are one room when their bytes are equal, and never else: text
// would not do, since different bytes that are no UTF-8, or spell the same letters in different ways, count as one there.

/// A room's name. Costs an allocation, so it is made once for each call of a script.
struct RoomName: Hashable, Sendable {
  /// As scripts see it.
  let bytes: [UInt8]

  /// A name as a script gave it.
  init(_ bytes: UnsafeRawBufferPointer) { self.bytes = unsafe Array(bytes) }

  /// A name as an operator gave it.
  init(text: String) { bytes = Array(text.utf8) }

  /// For people.
  var text: String { String(decoding: bytes, as: UTF8.self) }
}
