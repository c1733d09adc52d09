// Functions that Swift offers to scripts, and what such a function sees of one call of it.
// The bridge has read and checked the arguments before; it pushes, waits or raises after the function returned.

import CLua

/// The body of a function offered to scripts: the state's context and the call.
public typealias HostBody = @convention(c) (UnsafeMutableRawPointer?, UnsafeMutablePointer<mp_call>?) -> Void

/// The usual call of a method in short: the state's context, the connection's id, one string, which Lua owns, and the outbox that may
/// be opened, if any. True when all is done and the script gets `true`; false has the function's body called.
public typealias DirectBody =
  @convention(c) (
    UnsafeMutableRawPointer?, Int64, UnsafePointer<CChar>?, Int, HostOutboxPointer?
  ) -> Bool

/// What a direct way is passed to make a `HostOutbox` of.
public typealias HostOutboxPointer = UnsafeMutablePointer<mp_outbox>

/// Told, with the state's context, how many bytes and messages were put into an outbox that is closed now, and how many of the
/// messages that came with it were taken.
public typealias OutboxClosedBody = @convention(c) (UnsafeMutableRawPointer?, Int, UInt32, Int) -> Void

/// A message that is cut ahead of its time, as the bridge takes it.
public typealias CutMessage = mp_cut

extension mp_cut {
  /// A message, and what comes behind it in the bytes that it is cut off.
  @inline(__always)
  public init(_ message: LuaBytes, behind: Int) { unsafe self.init(message: message, end: behind) }

  /// Where what comes behind it begins.
  @inline(__always)
  public var behind: Int { unsafe end }
}

/// Room that further calls of a method fill without asking; see `mp_outbox` in the bridge's header.
@safe public struct HostOutbox {
  private let outbox: UnsafeMutablePointer<mp_outbox>

  /// Wraps what the bridge passed.
  @inline(__always)
  public init(_ outbox: UnsafeMutablePointer<mp_outbox>) { unsafe self.outbox = unsafe outbox }

  /// Opens it: `room` stays where it is and unused by others until `closed` was called. `copySuffix` writes what goes behind each
  /// framed message to the address it gets, at most `MP_SUFFIX_MAX` bytes, and says how many. The messages of `cut` are handed over
  /// meanwhile.
  public func open(
    _ room: UnsafeMutableRawBufferPointer, _ cut: UnsafeBufferPointer<CutMessage>,
    copySuffix: (UnsafeMutableRawPointer) -> Int,
    closed: @escaping OutboxClosedBody
  ) {
    let begin = unsafe room.baseAddress!.assumingMemoryBound(to: CChar.self)
    unsafe outbox.pointee.begin = begin
    unsafe outbox.pointee.next = begin
    unsafe outbox.pointee.end = begin + room.count
    unsafe outbox.pointee.messages = 0
    unsafe outbox.pointee.cut = cut.baseAddress
    unsafe outbox.pointee.cut_end = cut.baseAddress! + cut.count
    unsafe outbox.pointee.taken = 0
    unsafe outbox.pointee.closed = closed
    let suffix = unsafe UnsafeMutableRawPointer(outbox) + MemoryLayout<mp_outbox>.offset(of: \mp_outbox.suffix)!
    unsafe outbox.pointee.suffix_count = UInt8(copySuffix(suffix))
  }
}

/// The descriptions of the functions offered to the scripts of any number of states; lives as long as the program.
@safe public struct HostLibrary: @unchecked Sendable {
  let functions: UnsafeMutableBufferPointer<mp_function>

  /// Lays out the descriptions once.
  public init(_ list: [HostFunction]) {
    unsafe functions = UnsafeMutableBufferPointer.allocate(capacity: list.count)
    for (index, function) in list.enumerated() {
      unsafe functions.initializeElement(at: index, to: function.description)
    }
  }
}

/// One function offered to scripts. The signature's letters are explained at `mp_function` in the bridge's header.
@safe public struct HostFunction: @unchecked Sendable {
  let description: mp_function

  /// A function named `connection:name` becomes a method of connections, `shared:name` one of shared dictionaries, any other a
  /// field of the native table. `direct` is tried first where the function is a method called with one string; `frames` says that it
  /// sends messages and not bytes.
  public init(
    _ name: StaticString, _ signature: StaticString, waits: Bool = false, direct: DirectBody? = nil,
    frames: Bool = false, _ body: @escaping HostBody
  ) {
    unsafe description = unsafe mp_function(
      name: UnsafeRawPointer(name.utf8Start).assumingMemoryBound(to: CChar.self),
      signature: UnsafeRawPointer(signature.utf8Start).assumingMemoryBound(to: CChar.self),
      takes_functions: signature.description.utf8.contains(UInt8(ascii: "f")),
      takes_plain: signature.description.utf8.contains { $0 == UInt8(ascii: "p") || $0 == UInt8(ascii: "r") },
      waits: waits, body: body, direct: direct, frames: frames)
  }
}

/// One call from a script: its arguments, and the place for its results. Valid until the function returns.
@safe public struct HostCall {
  private let call: UnsafeMutablePointer<mp_call>

  /// Wraps what the bridge passed.
  public init(_ call: UnsafeMutablePointer<mp_call>) { unsafe self.call = unsafe call }

  /// The declared argument at `index`, 0-based.
  public subscript(index: Int) -> LuaValue {
    let offset = unsafe MemoryLayout<mp_call>.offset(of: \mp_call.arguments)!
    return unsafe UnsafeRawPointer(call).advanced(by: offset).assumingMemoryBound(to: LuaValue.self)[index]
  }

  /// How many arguments the script gave.
  public var argumentCount: Int { unsafe Int(call.pointee.argument_count) }

  /// How many arguments the variadic part of the signature took.
  public var variadicCount: Int { unsafe Int(call.pointee.argument_count - call.pointee.variadic_first + 1) }

  /// The 1-based place, among all arguments, of the first variadic one that is no string; nil when all are.
  public var firstVariadicNotString: Int? {
    for index in 0..<variadicCount where unsafe mp_call_bytes(call, Int32(index), nil) == nil {
      return unsafe Int(call.pointee.variadic_first) + index
    }
    return nil
  }

  /// The only variadic argument, when there is one and it is a string: the usual case, in one look.
  public var singleVariadic: UnsafeRawBufferPointer? {
    let first = unsafe call.pointee.variadic_first
    return unsafe call.pointee.argument_count == first ? self[Int(first) - 1].asBytes : nil
  }

  /// What `encodes` has made; nil before.
  public var encoded: UnsafeRawBufferPointer? {
    var count = 0
    guard let base = unsafe mp_call_encoded(call, &count) else { return nil }
    return unsafe UnsafeRawBufferPointer(start: base, count: count)
  }

  /// The variadic argument at `index`, 0-based; the bytes belong to Lua.
  public func variadic(_ index: Int) -> UnsafeRawBufferPointer {
    var count = 0
    let base = unsafe mp_call_bytes(call, Int32(index), &count)
    return unsafe UnsafeRawBufferPointer(start: base, count: count)
  }

  /// Memory for results, valid until this is used the next time in the state; nil when there is none.
  public func room(_ count: Int) -> UnsafeMutableRawBufferPointer? {
    guard let base = unsafe mp_call_room(call, count) else { return nil }
    return unsafe UnsafeMutableRawBufferPointer(start: base, count: count)
  }

  private func result(_ index: Int, _ value: LuaValue) {
    let offset = unsafe MemoryLayout<mp_call>.offset(of: \mp_call.results)!
    unsafe UnsafeMutableRawPointer(call).advanced(by: offset).assumingMemoryBound(to: LuaValue.self)[index] =
      unsafe value
  }

  /// Returns one value to the script.
  public func returns(_ value: LuaValue) {
    unsafe result(0, value)
    unsafe call.pointee.result_count = 1
  }

  /// Returns two values to the script.
  public func returns(_ first: LuaValue, _ second: LuaValue) {
    unsafe result(0, first)
    unsafe result(1, second)
    unsafe call.pointee.result_count = 2
  }

  /// Returns three values to the script.
  public func returns(_ first: LuaValue, _ second: LuaValue, _ third: LuaValue) {
    unsafe returns(first, second)
    unsafe result(2, third)
    unsafe call.pointee.result_count = 3
  }

  /// Returns four values to the script, the most there can be.
  public func returns(_ first: LuaValue, _ second: LuaValue, _ third: LuaValue, _ fourth: LuaValue) {
    unsafe returns(first, second, third)
    unsafe result(3, fourth)
    unsafe call.pointee.result_count = 4
  }

  /// Returns `nil` and a stable reason: what can fail in a running program.
  public func fails(_ reason: StaticString) { unsafe returns(.nil, .text(reason)) }

  /// Suspends the calling coroutine until its thread is resumed.
  public func waits() { unsafe call.pointee.outcome = Int32(MP_WAIT) }

  /// Raises an error at the script's line once Swift has returned: wrong use. The text stays where it is until then.
  public func raises(_ message: LuaValue) {
    unsafe result(0, message)
    unsafe call.pointee.outcome = Int32(MP_RAISE)
  }

  /// Raises an argument error that names the function, the argument (1-based) and the script's line.
  public func raisesTypeError(argument: Int, expected: StaticString) {
    unsafe result(0, .integer(Int64(argument)))
    unsafe result(1, .text(expected))
    unsafe call.pointee.outcome = Int32(MP_TYPE)
  }

  /// Has `function` called with `encode` and the one variadic argument, and then this function again with `encoded` set.
  public func encodes(with function: LuaReference, _ encode: LuaReference) {
    unsafe result(0, .reference(function))
    unsafe result(1, .reference(encode))
    unsafe call.pointee.outcome = Int32(MP_ENCODE)
  }
}
