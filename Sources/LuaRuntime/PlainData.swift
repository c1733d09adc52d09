// Plain data: values that may leave their Lua state, packed into bytes that any other state unpacks. nil, booleans, integers, floats,
// strings, and tables of them that form a tree. Packing and unpacking is CLua's (plain.c, unpack.c); this file only carries the bytes.

import CLua

/// One packed value, or a packed list of them, outside of every Lua state: immutable, and shared without copying.
public struct PlainData: Equatable, Sendable {
  /// The packed form. Its numbers have this machine's byte order, so it stays in the program.
  public let bytes: [UInt8]
  /// Whether it is a list, which a call returns, or a function gets, as that many values.
  public let isList: Bool

  /// Takes packed bytes as they are. Damaged ones make a Lua error where they are unpacked.
  public init(bytes: [UInt8], isList: Bool) {
    self.bytes = bytes
    self.isList = isList
  }

  /// A copy of a table or list that arrived as plain data (signature letters 'p' and 'r'); nil when the value is something else.
  public init?(_ value: LuaValue) {
    guard let packed = unsafe value.asPlain else { return nil }
    bytes = unsafe Array(packed)
    isList = unsafe value.kind == Int32(MP_PLAIN_LIST)
  }

  /// The most bytes that one packed value or list may have.
  public static var bytesMax: Int { Int(MP_PLAIN_BYTES_MAX) }

  /// Lends the value to a call into Lua, which has to be over when `body` returns.
  public func withValue<Result>(_ body: (LuaValue) -> Result) -> Result {
    unsafe bytes.withUnsafeBytes { unsafe body(isList ? .plainList($0) : .plain($0)) }
  }
}

extension mp_value {
  /// A packed value that stays where it is until Lua has unpacked it; damaged bytes raise an error there.
  public static func plain(_ bytes: UnsafeRawBufferPointer) -> LuaValue {
    unsafe packed(MP_PLAIN, bytes)
  }

  /// A packed list that stays where it is until Lua has unpacked it: as the last result all its values are returned, as the last
  /// argument all are passed.
  public static func plainList(_ bytes: UnsafeRawBufferPointer) -> LuaValue {
    unsafe packed(MP_PLAIN_LIST, bytes)
  }

  private static func packed(_ kind: Int, _ bytes: UnsafeRawBufferPointer) -> LuaValue {
    let base = unsafe bytes.baseAddress?.assumingMemoryBound(to: CChar.self)
    return unsafe mp_value(kind: Int32(kind), index: 0, integer: Int64(bytes.count), number: 0, base: base)
  }

  /// The packed form of a table or list, valid until the function that got it returns or calls into Lua; nil when the value is
  /// something else.
  public var asPlain: UnsafeRawBufferPointer? {
    guard unsafe kind == Int32(MP_PLAIN) || kind == Int32(MP_PLAIN_LIST) else { return nil }
    return unsafe UnsafeRawBufferPointer(start: base, count: Int(integer))
  }
}
