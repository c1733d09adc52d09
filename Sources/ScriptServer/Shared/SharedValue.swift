// What a shared dictionary can hold, as values that borrow their bytes. Must never know where the bytes lie nor for how long:
// whoever hands a value on copies what it wants to keep.

/// One value on its way into a dictionary or out of it.
@safe
enum SharedValue {
  case boolean(Bool)
  case integer(Int64)
  case number(Double)
  /// A string's bytes.
  case bytes(UnsafeRawBufferPointer)
  /// A table, packed as plain data.
  case plain(UnsafeRawBufferPointer)

  /// What the entry that holds the value is marked with.
  var kind: ValueKind {
    switch self {
    case .boolean: .boolean
    case .integer: .integer
    case .number: .number
    case .bytes: .bytes
    case .plain: .plain
    }
  }

  /// The value as one word; 0 for those that are bytes.
  var word: UInt64 {
    switch self {
    case .boolean(let flag): flag ? 1 : 0
    case .integer(let integer): UInt64(bitPattern: integer)
    case .number(let number): number.bitPattern
    case .bytes, .plain: 0
    }
  }

  /// The bytes of a string or a packed table; empty for the others.
  var content: UnsafeRawBufferPointer {
    switch self {
    case .bytes(let bytes): unsafe bytes
    case .plain(let bytes): unsafe bytes
    case .boolean, .integer, .number: unsafe UnsafeRawBufferPointer(start: nil, count: 0)
    }
  }

  /// A value from what an entry or a list's element keeps of it; nil for a list.
  @inline(__always)
  init?(kind: ValueKind, word: UInt64, content: UnsafeRawBufferPointer) {
    switch kind {
    case .boolean: self = .boolean(word != 0)
    case .integer: self = .integer(Int64(bitPattern: word))
    case .number: self = .number(Double(bitPattern: word))
    case .bytes: self = unsafe .bytes(content)
    case .plain: self = unsafe .plain(content)
    case .list: return nil
    }
  }

  /// Equality as Lua's `==` has it: 1 equals 1.0, a string its bytes. A table equals nothing.
  func equals(_ other: SharedValue) -> Bool {
    switch (self, other) {
    case (.boolean(let one), .boolean(let two)): one == two
    case (.integer(let one), .integer(let two)): one == two
    case (.number(let one), .number(let two)): one == two
    case (.integer(let integer), .number(let number)), (.number(let number), .integer(let integer)):
      Int64(exactly: number) == integer
    case (.bytes(let one), .bytes(let two)): unsafe one.elementsEqual(two)
    default: false
    }
  }
}

/// What an entry holds.
enum ValueKind: UInt8 {
  case boolean
  case integer
  case number
  case bytes
  case plain
  /// A list of values, changed under the dictionary's lock only.
  case list

  /// Whether a value of this kind is one word, which can be changed in place.
  var isWord: Bool {
    switch self {
    case .boolean, .integer, .number: true
    case .bytes, .plain, .list: false
    }
  }
}
