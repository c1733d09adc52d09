// The codecs in use on a worker, by a small index, so that a connection holds two bytes of it. Built-in codecs with equal
// settings share an entry, a codec written in Lua has its own; one that nobody uses any more is forgotten.

import Codecs
import LuaRuntime

/// A codec as a connection uses it.
enum CodecEntry {
  case builtin(Codec)
  /// Functions of a script: `decode(bytes, position)` and `encode(message)`.
  case scripted(decode: LuaReference, encode: LuaReference, maxLength: Int)
  case unused

  /// For people.
  var name: String {
    switch self {
    case .builtin(let codec): codec.name
    case .scripted: "lua"
    case .unused: ""
    }
  }
}

/// The table. Owned by the worker's thread.
struct CodecTable: ~Copyable {
  private(set) var entries: [CodecEntry] = [.builtin(.raw)]
  private var uses: [Int] = [1]
  private var scriptedCount = 0

  /// Index of the codec "raw", which always exists.
  static let raw: UInt16 = 0

  init() {}

  /// Whether a codec in Lua is in use.
  var hasScripted: Bool { scriptedCount > 0 }

  subscript(index: UInt16) -> CodecEntry { entries[Int(index)] }

  /// Whether the codec at `index` is built in.
  @inline(__always)
  func isBuiltin(_ index: UInt16) -> Bool {
    if case .builtin = entries[Int(index)] { return true }
    return false
  }

  /// The index of a built-in codec, entered when it is new, with one user more: the caller. Nil when the table is full.
  mutating func intern(_ codec: Codec) -> UInt16? {
    for (index, entry) in entries.enumerated() {
      guard case .builtin(let known) = entry, known == codec else { continue }
      uses[index] += 1
      return UInt16(index)
    }
    return place(.builtin(codec))
  }

  /// Enters a codec written in Lua, used by whoever entered it; nil when the table is full.
  mutating func insertScripted(decode: LuaReference, encode: LuaReference, maxLength: Int) -> UInt16? {
    guard let index = place(.scripted(decode: decode, encode: encode, maxLength: maxLength)) else { return nil }
    scriptedCount += 1
    return index
  }

  /// One more user of an entry.
  mutating func retain(_ index: UInt16) { uses[Int(index)] += 1 }

  /// One user less; the references of a codec in Lua that nobody uses are given back to `lua`.
  mutating func release(_ index: UInt16, lua: LuaState) {
    if index == Self.raw || uses[Int(index)] == 0 { return }
    uses[Int(index)] -= 1
    if uses[Int(index)] > 0 { return }
    if case .scripted(let decode, let encode, _) = entries[Int(index)] {
      lua.release(decode)
      lua.release(encode)
      scriptedCount -= 1
    }
    entries[Int(index)] = .unused
  }

  private mutating func place(_ entry: CodecEntry) -> UInt16? {
    for (index, old) in entries.enumerated() {
      if case .unused = old {
        entries[index] = entry
        uses[index] = 1
        return UInt16(index)
      }
    }
    guard entries.count < Int(UInt16.max) else { return nil }
    entries.append(entry)
    uses.append(1)
    return UInt16(entries.count - 1)
  }
}
