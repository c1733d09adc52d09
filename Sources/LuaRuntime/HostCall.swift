// Functions that Swift offers to scripts, and what such a function sees of one call of it.
// The bridge has read and checked the arguments before; it pushes, waits or raises after the function returned.

import CLua

/// The body of a function offered to scripts: the state's context and the call.
package typealias HostBody = @convention(c) (UnsafeMutableRawPointer?, UnsafeMutablePointer<mp_call>?) -> Void

/// The usual call of a method in short: the state's context, the connection's id, and one string, which Lua owns. True when all is
/// done and the script gets `true`; false has the function's body called.
package typealias DirectBody = @convention(c) (UnsafeMutableRawPointer?, Int64, UnsafePointer<CChar>?, Int) -> Bool

/// The descriptions of the functions offered to the scripts of any number of states; lives as long as the program.
@safe package struct HostLibrary: @unchecked Sendable {
  let functions: UnsafeMutableBufferPointer<mp_function>

  /// Lays out the descriptions once.
  package init(_ list: [HostFunction]) {
    unsafe functions = UnsafeMutableBufferPointer.allocate(capacity: list.count)
    for (index, function) in list.enumerated() {
      unsafe functions.initializeElement(at: index, to: function.description)
    }
  }
}

/// One function offered to scripts. The signature's letters are explained at `mp_function` in the bridge's header.
@safe package struct HostFunction: @unchecked Sendable {
  let description: mp_function

  /// A function named `connection:name` becomes a method of connections, `shared:name` one of shared dictionaries, any other a
  /// field of the native table. `direct` is tried first where the function is a method called with one string.
  package init(
    _ name: StaticString, _ signature: StaticString, waits: Bool = false, direct: DirectBody? = nil,
    _ body: @escaping HostBody
  ) {
    unsafe description = unsafe mp_function(
      name: UnsafeRawPointer(name.utf8Start).assumingMemoryBound(to: CChar.self),
      signature: UnsafeRawPointer(signature.utf8Start).assumingMemoryBound(to: CChar.self),
      takes_functions: signature.description.utf8.contains(UInt8(ascii: "f")),
      takes_plain: signature.description.utf8.contains { $0 == UInt8(ascii: "p") || $0 == UInt8(ascii: "r") },
      waits: waits, body: body, direct: direct)
  }
}

/// One call from a script: its arguments, and the place for its results. Valid until the function returns.
@safe package struct HostCall {
  private let call: UnsafeMutablePointer<mp_call>

  /// Wraps what the bridge passed.
  package init(_ call: UnsafeMutablePointer<mp_call>) { unsafe self.call = unsafe call }

  /// The declared argument at `index`, 0-based.
  package subscript(index: Int) -> LuaValue {
    let offset = unsafe MemoryLayout<mp_call>.offset(of: \mp_call.arguments)!
    return unsafe UnsafeRawPointer(call).advanced(by: offset).assumingMemoryBound(to: LuaValue.self)[index]
  }

  /// How many arguments the script gave.
  package var argumentCount: Int { unsafe Int(call.pointee.argument_count) }

  /// How many arguments the variadic part of the signature took.
  package var variadicCount: Int { unsafe Int(call.pointee.argument_count - call.pointee.variadic_first + 1) }

  /// The 1-based place, among all arguments, of the first variadic one that is no string; nil when all are.
  package var firstVariadicNotString: Int? {
    for index in 0..<variadicCount where unsafe mp_call_bytes(call, Int32(index), nil) == nil {
      return unsafe Int(call.pointee.variadic_first) + index
    }
    return nil
  }

  /// The only variadic argument, when there is one and it is a string: the usual case, in one look.
  package var singleVariadic: UnsafeRawBufferPointer? {
    let first = unsafe call.pointee.variadic_first
    return unsafe call.pointee.argument_count == first ? self[Int(first) - 1].asBytes : nil
  }

  /// What `encodes` has made; nil before.
  package var encoded: UnsafeRawBufferPointer? {
    var count = 0
    guard let base = unsafe mp_call_encoded(call, &count) else { return nil }
    return unsafe UnsafeRawBufferPointer(start: base, count: count)
  }

  /// The variadic argument at `index`, 0-based; the bytes belong to Lua.
  package func variadic(_ index: Int) -> UnsafeRawBufferPointer {
    var count = 0
    let base = unsafe mp_call_bytes(call, Int32(index), &count)
    return unsafe UnsafeRawBufferPointer(start: base, count: count)
  }

  /// Memory for results, valid until this is used the next time in the state; nil when there is none.
  package func room(_ count: Int) -> UnsafeMutableRawBufferPointer? {
    guard let base = unsafe mp_call_room(call, count) else { return nil }
    return unsafe UnsafeMutableRawBufferPointer(start: base, count: count)
  }

  private func result(_ index: Int, _ value: LuaValue) {
    let offset = unsafe MemoryLayout<mp_call>.offset(of: \mp_call.results)!
    unsafe UnsafeMutableRawPointer(call).advanced(by: offset).assumingMemoryBound(to: LuaValue.self)[index] =
      unsafe value
  }

  /// Returns one value to the script.
  package func returns(_ value: LuaValue) {
    unsafe result(0, value)
    unsafe call.pointee.result_count = 1
  }

  /// Returns two values to the script.
  package func returns(_ first: LuaValue, _ second: LuaValue) {
    unsafe result(0, first)
    unsafe result(1, second)
    unsafe call.pointee.result_count = 2
  }

  /// Returns three values to the script.
  package func returns(_ first: LuaValue, _ second: LuaValue, _ third: LuaValue) {
    unsafe returns(first, second)
    unsafe result(2, third)
    unsafe call.pointee.result_count = 3
  }

  /// Returns four values to the script, the most there can be.
  package func returns(_ first: LuaValue, _ second: LuaValue, _ third: LuaValue, _ fourth: LuaValue) {
    unsafe returns(first, second, third)
    unsafe result(3, fourth)
    unsafe call.pointee.result_count = 4
  }

  /// Returns `nil` and a stable reason: what can fail in a running program.
  package func fails(_ reason: StaticString) { unsafe returns(.nil, .text(reason)) }

  /// Suspends the calling coroutine until its thread is resumed.
  package func waits() { unsafe call.pointee.outcome = Int32(MP_WAIT) }

  /// Raises an error at the script's line once Swift has returned: wrong use. The text stays where it is until then.
  package func raises(_ message: LuaValue) {
    unsafe result(0, message)
    unsafe call.pointee.outcome = Int32(MP_RAISE)
  }

  /// Raises an argument error that names the function, the argument (1-based) and the script's line.
  package func raisesTypeError(argument: Int, expected: StaticString) {
    unsafe result(0, .integer(Int64(argument)))
    unsafe result(1, .text(expected))
    unsafe call.pointee.outcome = Int32(MP_TYPE)
  }

  /// Has `function` called with `encode` and the one variadic argument, and then this function again with `encoded` set.
  package func encodes(with function: LuaReference, _ encode: LuaReference) {
    unsafe result(0, .reference(function))
    unsafe result(1, .reference(encode))
    unsafe call.pointee.outcome = Int32(MP_ENCODE)
  }
}
