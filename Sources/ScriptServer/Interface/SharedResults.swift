// What the calls on shared dictionaries return to the script. Bytes are copied into the state's room while the dictionary still holds
// them: Lua makes its strings of them after that, when another thread may have removed them.

import LuaRuntime

/// Values on their way to a script as one list.
@safe
struct SharedResults {
  /// Keys that `keys` returns when no limit is given, as get_keys of ngx.shared.DICT.
  static let keysDefaultMax = 1024

  private enum Item {
    case word(SharedValue)
    /// `count` bytes from `start` on.
    case bytes(start: Int, count: Int)
    case plain(start: Int, count: Int)
  }

  private var items: [Item] = []
  private var bytes: [UInt8] = []

  /// Adds a copy of a value.
  mutating func append(_ value: SharedValue) {
    let start = bytes.count
    switch value {
    case .boolean, .integer, .number: items.append(.word(value))
    case .bytes(let content):
      unsafe bytes.append(contentsOf: content)
      items.append(.bytes(start: start, count: content.count))
    case .plain(let content):
      unsafe bytes.append(contentsOf: content)
      items.append(.plain(start: start, count: content.count))
    }
  }

  /// The values as Lua gets them, laid out in the state's room: the values first, then their bytes. Nil without memory.
  fileprivate func list(_ call: HostCall) -> LuaValue? {
    let valueBytes = unsafe items.count * MemoryLayout<LuaValue>.stride
    guard let room = unsafe call.room(max(valueBytes + bytes.count, 1)), let base = room.baseAddress else {
      return nil
    }
    let values = unsafe base.bindMemory(to: LuaValue.self, capacity: max(items.count, 1))
    let content = unsafe UnsafeMutableRawBufferPointer(rebasing: room[valueBytes...])
    unsafe content.copyBytes(from: bytes)
    func part(_ start: Int, _ count: Int) -> UnsafeRawBufferPointer {
      unsafe UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(content)[start..<start + count])
    }
    for (index, item) in items.enumerated() {
      switch item {
      case .word(let value): unsafe (values + index).initialize(to: value.luaWord)
      case .bytes(let start, let count): unsafe (values + index).initialize(to: .bytes(part(start, count)))
      case .plain(let start, let count): unsafe (values + index).initialize(to: .plain(part(start, count)))
      }
    }
    return unsafe .list(UnsafeBufferPointer(start: values, count: items.count))
  }
}

extension SharedValue {
  /// Whether it can be added to.
  var isNumber: Bool {
    switch self {
    case .integer, .number: true
    case .boolean, .bytes, .plain: false
    }
  }

  /// A value that is one word, for Lua; nil for the others.
  fileprivate var luaWord: LuaValue {
    switch self {
    case .boolean(let flag): unsafe .boolean(flag)
    case .integer(let integer): unsafe .integer(integer)
    case .number(let number): unsafe .number(number)
    case .bytes, .plain: unsafe .nil
    }
  }
}

extension HostCall {
  /// Returns a copy of a value, and its flags when there are any.
  @inline(__always)
  func returns(copying value: SharedValue, flags: UInt32) {
    let result: LuaValue
    switch value {
    case .boolean, .integer, .number: unsafe result = value.luaWord
    case .bytes(let content):
      guard let copy = unsafe copy(content) else { return raisesNoMemory() }
      unsafe result = .bytes(copy)
    case .plain(let content):
      guard let copy = unsafe copy(content) else { return raisesNoMemory() }
      unsafe result = .plain(copy)
    }
    if flags == 0 { unsafe returns(result) } else { unsafe returns(result, .integer(Int64(flags))) }
  }

  @inline(__always)
  private func copy(_ content: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer? {
    guard let room = unsafe room(max(content.count, 1)) else { return nil }
    unsafe room.copyMemory(from: content)
    return unsafe UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(room)[..<content.count])
  }

  private func raisesNoMemory() { unsafe raises(.text("not enough memory")) }

  /// Returns values as one list.
  func returns(_ results: SharedResults) {
    if let list = unsafe results.list(self) { unsafe returns(list) } else { raisesNoMemory() }
  }

  /// `true, nil, forcible`, or `nil` and the reason.
  func returns(_ outcome: ChangeOutcome) {
    switch outcome {
    case .done(let forcible): unsafe returns(.boolean(true), .nil, .boolean(forcible))
    case .exists: fails("exists")
    case .notFound: fails("not found")
    case .changed: fails("changed")
    case .noMemory: fails("no memory")
    }
  }

  /// The new number, or `nil` and the reason.
  func returns(_ outcome: IncrementOutcome, withForcible: Bool) {
    switch outcome {
    case .integer(let sum, let forcible):
      if withForcible { unsafe returns(.integer(sum), .nil, .boolean(forcible)) } else { unsafe returns(.integer(sum)) }
    case .number(let sum, let forcible):
      if withForcible { unsafe returns(.number(sum), .nil, .boolean(forcible)) } else { unsafe returns(.number(sum)) }
    case .notFound: fails("not found")
    case .notANumber: fails("not a number")
    case .overflow: fails("overflow")
    case .noMemory: fails("no memory")
    }
  }

  /// The number of elements, or `nil` and the reason.
  func returns(_ outcome: ListOutcome) {
    switch outcome {
    case .count(let count): unsafe returns(.integer(Int64(count)))
    case .notAList: fails("value not a list")
    case .noMemory: fails("no memory")
    }
  }
}
