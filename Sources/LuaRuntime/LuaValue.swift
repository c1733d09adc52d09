// Plain values between Swift and Lua, and the Swift face of one call that a script makes.
// Knows no socket and no server; it must never hold on to bytes that belong to Lua beyond the call.

import CLua

/// One argument or result in transit, as the bridge lays it out.
public typealias LuaValue = mp_value

/// Bytes that stay where they are until Lua has copied them, as the bridge takes them.
public typealias LuaBytes = mp_bytes

extension mp_bytes {
  /// None at all, which is not the same as an empty string.
  public static var none: LuaBytes { unsafe mp_bytes(base: nil, count: 0) }

  /// Whether it is `none`.
  @inline(__always)
  public var isNone: Bool { unsafe base == nil }

  /// These bytes, of which there may be 0.
  public init(_ bytes: UnsafeRawBufferPointer) {
    unsafe self.init(base: bytes.baseAddress?.assumingMemoryBound(to: CChar.self) ?? emptyBytes, count: bytes.count)
  }

  /// Bytes that begin at `base`.
  @inline(__always)
  public init(_ base: UnsafeRawPointer, count: Int) {
    unsafe self.init(base: base.assumingMemoryBound(to: CChar.self), count: count)
  }
}

extension mp_value {
  /// Lua's nil.
  public static var `nil`: LuaValue { unsafe value(MP_NIL) }

  /// A boolean.
  public static func boolean(_ flag: Bool) -> LuaValue { unsafe value(MP_BOOLEAN, integer: flag ? 1 : 0) }

  /// An integer.
  public static func integer(_ number: Int64) -> LuaValue { unsafe value(MP_INTEGER, integer: number) }

  /// A float.
  public static func number(_ number: Double) -> LuaValue {
    unsafe mp_value(kind: Int32(MP_NUMBER), index: 0, integer: 0, number: number, base: nil)
  }

  /// Bytes that stay where they are until Lua has copied them; for results that is after the Swift function returned.
  public static func bytes(_ bytes: UnsafeRawBufferPointer) -> LuaValue {
    let base = unsafe bytes.baseAddress?.assumingMemoryBound(to: CChar.self)
    return unsafe mp_value(
      kind: Int32(MP_BYTES), index: 0, integer: Int64(bytes.count), number: 0, base: base ?? emptyBytes)
  }

  /// A constant text.
  public static func text(_ text: StaticString) -> LuaValue {
    unsafe bytes(UnsafeRawBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
  }

  /// A value kept in Lua's registry.
  public static func reference(_ reference: LuaReference) -> LuaValue {
    unsafe mp_value(kind: Int32(MP_REFERENCE), index: reference.index, integer: 0, number: 0, base: nil)
  }

  /// A value kept in Lua's registry that is given back once Lua has it: the bridge's from here on.
  public static func given(_ reference: LuaReference) -> LuaValue {
    unsafe mp_value(kind: Int32(MP_GIVEN), index: reference.index, integer: 0, number: 0, base: nil)
  }

  /// An object for the shared dictionary at an address, which outlives the state; `name` is copied.
  public static func dictionary(_ address: UnsafeRawPointer, name: UnsafeRawBufferPointer) -> LuaValue {
    let base = unsafe name.baseAddress?.assumingMemoryBound(to: CChar.self)
    return unsafe mp_value(
      kind: Int32(MP_DICTIONARY), index: Int32(name.count), integer: Int64(Int(bitPattern: address)), number: 0,
      base: base ?? emptyBytes)
  }

  /// A sequence of values that stay where they are until Lua has copied them.
  public static func list(_ items: UnsafeBufferPointer<LuaValue>) -> LuaValue {
    let base = unsafe UnsafeRawPointer(items.baseAddress)?.assumingMemoryBound(to: CChar.self)
    return unsafe mp_value(
      kind: Int32(MP_LIST), index: 0, integer: Int64(items.count), number: 0, base: base)
  }

  private static func value(_ kind: Int, integer: Int64 = 0) -> LuaValue {
    unsafe mp_value(kind: Int32(kind), index: 0, integer: integer, number: 0, base: nil)
  }

  /// True when nothing was given.
  public var isNil: Bool { unsafe kind == Int32(MP_NIL) }

  /// The boolean, or nil when the value is something else.
  public var asBoolean: Bool? { unsafe kind == Int32(MP_BOOLEAN) ? integer != 0 : nil }

  /// The integer, or nil when the value is something else.
  public var asInteger: Int64? { unsafe kind == Int32(MP_INTEGER) ? integer : nil }

  /// The number, integer or float, or nil when the value is something else.
  public var asNumber: Double? {
    if unsafe kind == Int32(MP_NUMBER) { return unsafe number }
    return unsafe asInteger.map(Double.init)
  }

  /// The id of a connection object, or nil when the value is something else.
  public var asConnection: Int64? { unsafe kind == Int32(MP_HANDLE) ? integer : nil }

  /// The address of a shared dictionary, or nil when the value is something else.
  public var asDictionary: UnsafeRawPointer? {
    unsafe kind == Int32(MP_DICTIONARY) ? UnsafeRawPointer(bitPattern: Int(integer)) : nil
  }

  /// The reference, which the receiver owns, or nil when the value is something else.
  public var asReference: LuaReference? {
    unsafe kind == Int32(MP_REFERENCE) ? LuaReference(index: index) : nil
  }

  /// The bytes of a string, which Lua owns, or nil when the value is something else.
  public var asBytes: UnsafeRawBufferPointer? {
    guard unsafe kind == Int32(MP_BYTES) else { return nil }
    return unsafe UnsafeRawBufferPointer(start: base, count: Int(integer))
  }

  /// The bytes of a string as text, invalid UTF-8 replaced; empty when the value is something else.
  public var text: String {
    guard let bytes = unsafe asBytes else { return "" }
    return unsafe String(decoding: bytes, as: UTF8.self)
  }
}

/// What empty byte results point at: Lua wants an address even for no bytes.
private nonisolated(unsafe) let emptyBytes: UnsafePointer<CChar> = {
  let byte = UnsafeMutablePointer<CChar>.allocate(capacity: 1)
  unsafe byte.initialize(to: 0)
  return unsafe UnsafePointer(byte)
}()

/// A value kept alive in the registry of one state (luaL_ref, manual section 5.1). Whoever holds it gives it back with
/// `LuaState.release`.
public struct LuaReference: Equatable, Sendable {
  /// What luaL_ref returned, or LUA_NOREF.
  public var index: Int32

  /// The value that luaL_ref returned this number for.
  public init(index: Int32) { self.index = index }

  /// Refers to nothing.
  public static let none = LuaReference(index: LUA_NOREF)

  /// False for `none` and for a reference to nil.
  public var exists: Bool { index >= 0 }
}
