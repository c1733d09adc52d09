// moonport.shared and the methods of its dictionaries, under the names and with the argument order and results of ngx.shared.DICT.
// A method needs nothing but the dictionary's address in its object; what it stores or returns is in SharedResults.

import LuaRuntime

extension Interface {
  static let sharedFunctions: [HostFunction] = sharedReading + sharedWriting + sharedLists

  private static let sharedReading: [HostFunction] = unsafe [
    HostFunction("shared", "si?b") { unsafe Worker.of($0).giveDictionary(HostCall($1!)) },
    unsafe HostFunction("shared:get", "hs") { _, call in
      unsafe HostCall(call!).onKey { call, dictionary, key in
        let found = unsafe dictionary.read(key) { value, flags in
          call.returns(copying: value, flags: flags)
        }
        switch found {
        case .found: break
        case .missing: unsafe call.returns(.nil)
        case .list: call.fails("value is a list")
        }
      }
    },
    unsafe HostFunction("shared:ttl", "hs") { _, call in
      unsafe HostCall(call!).onKey { call, dictionary, key in
        guard let left = unsafe dictionary.timeToLive(key) else { return call.fails("not found") }
        unsafe call.returns(.number(Double(left) / 1e9))
      }
    },
    unsafe HostFunction("shared:keys", "hi?") { unsafe HostCall($1!).giveKeys() },
    unsafe HostFunction("shared:get_keys", "hi?") { unsafe HostCall($1!).giveKeys() },
    unsafe HostFunction("shared:count", "h") { _, call in
      unsafe HostCall(call!).onDictionary { call, dictionary in unsafe call.returns(.integer(Int64(dictionary.count())))
      }
    },
    unsafe HostFunction("shared:capacity", "h") { _, call in
      unsafe HostCall(call!).onDictionary { call, dictionary in
        unsafe call.returns(.integer(Int64(dictionary.capacity)))
      }
    },
    unsafe HostFunction("shared:free_space", "h") { _, call in
      unsafe HostCall(call!).onDictionary { call, dictionary in
        unsafe call.returns(.integer(Int64(dictionary.freeBytes)))
      }
    },
  ]

  private static let sharedWriting: [HostFunction] = unsafe [
    HostFunction("shared:set", "hsp?n?i?") { unsafe HostCall($1!).store(.set, mayEvict: true) },
    unsafe HostFunction("shared:safe_set", "hsp?n?i?") { unsafe HostCall($1!).store(.set, mayEvict: false) },
    unsafe HostFunction("shared:add", "hspn?i?") { unsafe HostCall($1!).store(.add, mayEvict: true) },
    unsafe HostFunction("shared:safe_add", "hspn?i?") { unsafe HostCall($1!).store(.add, mayEvict: false) },
    unsafe HostFunction("shared:replace", "hspn?i?") { unsafe HostCall($1!).store(.replace, mayEvict: true) },
    unsafe HostFunction("shared:delete", "hs") { _, call in
      unsafe HostCall(call!).onKey { call, dictionary, key in
        unsafe call.returns(.boolean(true), .nil, .boolean(dictionary.delete(key)))
      }
    },
    unsafe HostFunction("shared:incr", "hsaa?n?") { unsafe HostCall($1!).increment() },
    unsafe HostFunction("shared:cas", "hsp?p?n?") { unsafe HostCall($1!).compareAndSet() },
    unsafe HostFunction("shared:expire", "hsn") { _, call in
      unsafe HostCall(call!).onKey { call, dictionary, key in
        guard let lifetime = call.lifetime(2) else { return call.raisesBadTime(3) }
        if unsafe dictionary.expire(key, lifetime) {
          unsafe call.returns(.boolean(true))
        } else {
          call.fails("not found")
        }
      }
    },
    unsafe HostFunction("shared:flush", "h") { unsafe HostCall($1!).onDictionary { $1.flush() } },
    unsafe HostFunction("shared:flush_all", "h") { unsafe HostCall($1!).onDictionary { $1.flush() } },
    unsafe HostFunction("shared:flush_expired", "hi?") { _, call in
      unsafe HostCall(call!).onDictionary { call, dictionary in
        let limit = unsafe Int(call[1].asInteger ?? 0)
        unsafe call.returns(.integer(Int64(dictionary.flushExpired(limit: limit))))
      }
    },
  ]

  private static let sharedLists: [HostFunction] = unsafe [
    HostFunction("shared:lpush", "hsp") { unsafe HostCall($1!).push(.front) },
    unsafe HostFunction("shared:rpush", "hsp") { unsafe HostCall($1!).push(.back) },
    unsafe HostFunction("shared:lpop", "hs") { unsafe HostCall($1!).pop(.front) },
    unsafe HostFunction("shared:rpop", "hs") { unsafe HostCall($1!).pop(.back) },
    unsafe HostFunction("shared:llen", "hs") { _, call in
      unsafe HostCall(call!).onKey { call, dictionary, key in unsafe call.returns(dictionary.listCount(key)) }
    },
    unsafe HostFunction("shared:lrange", "hsii") { unsafe HostCall($1!).giveElements() },
  ]
}

extension Worker {
  /// native.shared(name, max_memory, loading): the dictionary. The cap that code asks for while it loads counts once it is live.
  fileprivate func giveDictionary(_ call: HostCall) {
    guard let name = unsafe call[0].asBytes else { return }
    let cap = unsafe call[1].asInteger.map { Int($0) }
    guard let dictionary = unsafe server.dictionaries.dictionary(name, capacityBytes: cap) else {
      return call.fails("too many dictionaries")
    }
    if let cap {
      if unsafe call[2].asBoolean == true {
        candidate?.dictionaryCaps[dictionary.name] = cap
      } else {
        dictionary.setCapacity(cap)
      }
    }
    unsafe call.returns(.dictionary(Unmanaged.passUnretained(dictionary).toOpaque(), name: name))
  }

  /// Puts the caps in force that a generation asked for while it loaded.
  func enterDictionaryCaps(_ generation: Generation) {
    for (name, cap) in generation.dictionaryCaps { server.dictionaries.setCapacity(cap, of: name) }
  }
}

extension HostCall {
  /// Runs `body` with the dictionary whose method was called. The server keeps it as long as it runs.
  @inline(__always)
  fileprivate func onDictionary(_ body: (HostCall, SharedDictionary) -> Void) {
    guard let address = unsafe self[0].asDictionary else { return }
    unsafe Unmanaged<SharedDictionary>.fromOpaque(address)._withUnsafeGuaranteedRef { body(self, $0) }
  }

  /// As `onDictionary`, for a method whose first argument is a key.
  @inline(__always)
  fileprivate func onKey(_ body: (HostCall, SharedDictionary, UnsafeRawBufferPointer) -> Void) {
    guard let key = unsafe self[1].asBytes else { return }
    if key.count > SharedEntry.keyBytesMax { return fails("key too long") }
    onDictionary { unsafe body($0, $1, key) }
  }

  /// The argument at `index` as a value; nil for nil.
  @inline(__always)
  private func value(_ index: Int) -> SharedValue? {
    let argument = unsafe self[index]
    if let bytes = unsafe argument.asBytes { return unsafe .bytes(bytes) }
    if let integer = unsafe argument.asInteger { return .integer(integer) }
    if let number = unsafe argument.asNumber { return .number(number) }
    if let flag = unsafe argument.asBoolean { return .boolean(flag) }
    return unsafe argument.asPlain.map { unsafe .plain($0) }
  }

  /// The argument at `index`, in seconds, as a lifetime: 0 when it is not given. Nil for what is no time.
  fileprivate func lifetime(_ index: Int) -> Lifetime? {
    guard let seconds = unsafe self[index].asNumber else { return .nanoseconds(0) }
    guard seconds >= 0 else { return nil }
    if seconds == 0 { return .nanoseconds(0) }
    // A century is as good as for ever, and is far from the end of the clock.
    return .nanoseconds(UInt64(max(min(seconds, 3.2e9) * 1e9, 1)))
  }

  fileprivate func raisesBadTime(_ argument: Int) {
    raisesTypeError(argument: argument, expected: "number of seconds, at least 0,")
  }

  fileprivate func store(_ mode: StoreMode, mayEvict: Bool) {
    unsafe onKey { call, dictionary, key in
      guard let lifetime = call.lifetime(3) else { return call.raisesBadTime(4) }
      guard let flags = unsafe UInt32(exactly: call[4].asInteger ?? 0) else {
        return call.raisesTypeError(argument: 5, expected: "integer from 0 to 4294967295")
      }
      guard let value = call.value(2) else {
        if mode != .set { return call.raisesTypeError(argument: 3, expected: "value") }
        _ = unsafe dictionary.delete(key)
        return unsafe call.returns(.boolean(true), .nil, .boolean(false))
      }
      unsafe call.returns(
        dictionary.store(key, value, mode: mode, lifetime: lifetime, flags: flags, mayEvict: mayEvict))
    }
  }

  fileprivate func increment() {
    unsafe onKey { call, dictionary, key in
      guard let amount = call.value(2), amount.isNumber else {
        return call.raisesTypeError(argument: 3, expected: "number")
      }
      let initial = call.value(3)
      if initial?.isNumber != true, unsafe !call[3].isNil {
        return call.raisesTypeError(argument: 4, expected: "number")
      }
      guard let lifetime = call.lifetime(4) else { return call.raisesBadTime(5) }
      if initial == nil, unsafe !call[4].isNil {
        return call.raisesTypeError(argument: 4, expected: "number")
      }
      let outcome = unsafe dictionary.increment(key, by: amount, initial: initial, lifetime: lifetime)
      call.returns(outcome, withForcible: initial != nil)
    }
  }

  fileprivate func compareAndSet() {
    unsafe onKey { call, dictionary, key in
      if unsafe call[2].asPlain != nil {
        return call.raisesTypeError(argument: 3, expected: "boolean, number, string or nil")
      }
      guard let lifetime = call.lifetime(4) else { return call.raisesBadTime(5) }
      let unchanged = unsafe call[4].isNil
      unsafe call.returns(
        dictionary.compareAndSet(
          key, old: call.value(2), new: call.value(3), lifetime: unchanged ? .unchanged : lifetime))
    }
  }

  fileprivate func push(_ end: SharedList.End) {
    unsafe onKey { call, dictionary, key in
      guard let value = call.value(2) else { return call.raisesTypeError(argument: 3, expected: "value") }
      unsafe call.returns(dictionary.push(key, value, at: end))
    }
  }

  fileprivate func pop(_ end: SharedList.End) {
    unsafe onKey { call, dictionary, key in
      switch unsafe dictionary.pop(key, end, { call.returns(copying: $0, flags: 0) }) {
      case .found: break
      case .missing: unsafe call.returns(.nil)
      case .list: call.fails("value not a list")
      }
    }
  }

  fileprivate func giveKeys() {
    onDictionary { call, dictionary in
      let limit = unsafe call[1].asInteger ?? Int64(SharedResults.keysDefaultMax)
      if limit < 0 { return call.raisesTypeError(argument: 2, expected: "integer of at least 0") }
      var results = SharedResults()
      unsafe dictionary.keys(limit: Int(limit)) { unsafe results.append(.bytes($0)) }
      call.returns(results)
    }
  }

  fileprivate func giveElements() {
    unsafe onKey { call, dictionary, key in
      var results = SharedResults()
      let outcome = unsafe dictionary.eachElement(key, from: call[2].asInteger ?? 1, to: call[3].asInteger ?? -1) {
        results.append($0)
      }
      if case .notAList = outcome { return call.fails("value not a list") }
      call.returns(results)
    }
  }
}
