// What the prelude tells and asks while a script loads: its source and modules, codecs, handlers and listeners.

import Codecs
import CompletionIO
import LuaRuntime

extension Interface {
  static let loadingFunctions: [HostFunction] = unsafe [
    HostFunction("main", "i") { unsafe Worker.of($0).giveMain(HostCall($1!)) },
    HostFunction("restores", "i") { unsafe Worker.of($0).beginning = HostCall($1!)[0].asInteger.map(Int.init) },
    unsafe HostFunction("is_strict", "") {
      unsafe HostCall($1!).returns(.boolean(Worker.of($0).server.configuration.sandbox == .strict))
    },
    unsafe HostFunction("module", "is") { unsafe Worker.of($0).giveModule(HostCall($1!)) },
    unsafe HostFunction("arguments", "") { unsafe Worker.of($0).giveArguments(HostCall($1!)) },
    unsafe HostFunction("check_address", "s") { context, call in
      let call = unsafe HostCall(call!)
      do throws(SocketAddressError) {
        _ = try unsafe SocketAddress(parsing: call[0].text)
      } catch {
        unsafe Worker.of(context).returnText(call, "\(error)")
      }
    },
    unsafe HostFunction("codec", "sbi?s?i?i?s?i?i?i?f?f?") { unsafe Worker.of($0).enterCodec(HostCall($1!)) },
    unsafe HostFunction("handlers", "f?f?f?f?f?f?f?f?") { unsafe Worker.of($0).enterHandlers(HostCall($1!)) },
    unsafe HostFunction("listener", "ssiiiinniinsininis") { unsafe Worker.of($0).enterListener(HostCall($1!)) },
  ]
}

extension Worker {
  /// The snapshot of a generation that is loaded or being loaded.
  private func snapshot(_ number: Int64) -> Snapshot? {
    if let candidate, candidate.number == Int(number) { return candidate.snapshot }
    return snapshots[Int(number)]
  }

  /// native.main(number): source, chunk name, number of the last line.
  fileprivate func giveMain(_ call: HostCall) {
    guard let main = unsafe snapshot(call[0].asInteger ?? 0)?.main else { return call.fails("no such generation") }
    let lines = main.bytes.reduce(1) { $0 + ($1 == UInt8(ascii: "\n") ? 1 : 0) }
    let last = main.bytes.last == UInt8(ascii: "\n") ? max(lines - 1, 1) : lines
    unsafe give(main, call, third: .integer(Int64(last)))
  }

  /// native.module(number, name): source and chunk name, or nil and the places looked at.
  fileprivate func giveModule(_ call: HostCall) {
    guard let snapshot = unsafe snapshot(call[0].asInteger ?? 0) else {
      return fail(call, "\n\tits generation has ended")
    }
    let name = unsafe call[1].text
    let known = snapshot.revision
    defer { if snapshot.number != candidate?.number, snapshot.revision != known { server.snapshotHasGrown() } }
    do throws(SnapshotError) {
      if let module = try snapshot.module(name) { return unsafe give(module, call, third: .nil) }
      fail(call, snapshot.searchedPaths(for: name).reduce("") { $0 + "\n\tno file '\($1)'" })
    } catch {
      raise(call, "\(error)")
    }
  }

  /// Source and chunk name, laid out one behind the other in the scratch memory.
  private func give(_ file: SourceFile, _ call: HostCall, third: LuaValue) {
    let name = Array("@\(file.displayName)".utf8)
    let block = unsafe scratch.reserve(file.bytes.count + name.count)
    unsafe block.copyBytes(from: file.bytes)
    unsafe UnsafeMutableRawBufferPointer(rebasing: block[file.bytes.count...]).copyBytes(from: name)
    let source = unsafe UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(block)[..<file.bytes.count])
    let place = unsafe UnsafeRawBufferPointer(
      rebasing: UnsafeRawBufferPointer(block)[file.bytes.count..<file.bytes.count + name.count])
    unsafe call.returns(.bytes(source), .bytes(place), third)
  }

  /// native.arguments(): what followed `--` on the command line.
  fileprivate func giveArguments(_ call: HostCall) {
    returnTexts(call, server.configuration.arguments.map { Array($0.utf8) })
  }

  // MARK: Codecs

  /// native.codec(type, is_listeners, max_length, delimiter, length, size, endian, offset, adjustment, strip, decode, encode)
  fileprivate func enterCodec(_ call: HostCall) {
    if unsafe call[10].asReference != nil { return enterScriptedCodec(call) }
    do throws(CodecSettingError) {
      let codec = try builtinCodec(call).validated()
      guard let index = codecs.intern(codec) else { return call.fails("too many different codecs on one worker") }
      enterUse(of: index, call)
      unsafe call.returns(.integer(Int64(index)))
    } catch {
      fail(call, "\(error)")
    }
  }

  private func builtinCodec(_ call: HostCall) throws(CodecSettingError) -> Codec {
    let maxLength = unsafe call[2].asInteger.map(Int.init)
    switch unsafe call[0].text {
    case "line": return .line(maxLength: maxLength ?? Codec.lineMaxLengthDefault)
    case "delimiter":
      let delimiter = try unsafe Delimiter(validating: call[3].asBytes.map { unsafe Array($0) } ?? [])
      return .delimiter(delimiter, maxLength: maxLength ?? Codec.lineMaxLengthDefault)
    case "fixed":
      guard let length = unsafe call[4].asInteger else {
        throw CodecSettingError(codec: "fixed", option: "length", problem: "is missing")
      }
      return .fixed(length: Int(length))
    case "length": return .lengthField(try lengthField(call, maxLength: maxLength))
    case "netstring": return .netstring(maxLength: maxLength ?? Codec.frameMaxLengthDefault)
    default: return .raw
    }
  }

  private func lengthField(_ call: HostCall, maxLength: Int?) throws(CodecSettingError) -> LengthField {
    guard let size = unsafe call[5].asInteger else {
      throw CodecSettingError(codec: "length", option: "size", problem: "is missing; it is 1, 2, 3, 4 or 8")
    }
    let endianText = unsafe call[6].isNil ? "big" : call[6].text
    guard let endian = LengthField.Endian(rawValue: endianText) else {
      throw CodecSettingError(
        codec: "length", option: "endian", problem: "must be \"big\" or \"little\", not \"\(endianText)\"")
    }
    return try unsafe LengthField(
      size: Int(size), endian: endian, offset: Int(call[7].asInteger ?? 0), adjustment: Int(call[8].asInteger ?? 0),
      strip: call[9].asInteger.map(Int.init), maxLength: maxLength ?? Codec.frameMaxLengthDefault)
  }

  private func enterScriptedCodec(_ call: HostCall) {
    guard let decode = unsafe call[10].asReference, let encode = unsafe call[11].asReference else { return }
    let maxLength = unsafe Int(call[2].asInteger ?? Int64(Codec.frameMaxLengthDefault))
    let isAllowed = Codec.maxLengthAllowed.contains(maxLength)
    guard isAllowed, let index = codecs.insertScripted(decode: decode, encode: encode, maxLength: maxLength) else {
      lua.release(decode)
      lua.release(encode)
      return fail(
        call,
        isAllowed
          ? "this worker has as many codecs as it can, \(UInt16.max)"
          : "max_length must be from 1 to \(Codec.maxLengthAllowed.upperBound), not \(maxLength)")
    }
    enterUse(of: index, call)
    unsafe call.returns(.integer(Int64(index)))
  }

  /// The use of a codec that was just entered is the loading code's where it is a listener's; else that of the connection that is about
  /// to use it.
  private func enterUse(of index: UInt16, _ call: HostCall) {
    guard unsafe call[1].asBoolean == true else { return }
    (runningGeneration == candidate?.number ? candidate : generation)?.codecs.append(index)
  }

  // MARK: Handlers and listeners

  /// native.handlers(on_open, on_message, …): the number of the set.
  fileprivate func enterHandlers(_ call: HostCall) {
    let references = (0..<HandlerSet.count).compactMap { unsafe call[$0].asReference }
    guard let candidate else {
      for reference in references { lua.release(reference) }
      return call.fails("only while a script loads")
    }
    candidate.references += references
    candidate.sets.append(HandlerSet { unsafe call[$0].asReference })
    unsafe call.returns(.integer(Int64(candidate.sets.count - 1)))
  }

  /// native.listener(place, address, codec, set, max_connections, per_ip, idle, message, hard, soft, soft_seconds, policy, backlog,
  /// connection_rate, connection_burst, message_rate, message_burst, message_policy)
  fileprivate func enterListener(_ call: HostCall) {
    guard let candidate else { return call.fails("only while a script loads") }
    var listener = ListenerSettings()
    listener.place = unsafe call[0].text
    listener.address = unsafe call[1].text
    listener.codec = unsafe UInt16(truncatingIfNeeded: call[2].asInteger ?? 0)
    listener.codecName = codecs[listener.codec].name
    listener.handlers = unsafe Int(call[3].asInteger ?? 0)
    listener.connectionsMax = unsafe Int(call[4].asInteger ?? 0)
    listener.connectionsPerAddressMax = unsafe Int(call[5].asInteger ?? 0)
    listener.limits.idleNanoseconds = unsafe Self.nanoseconds(call[6].asNumber ?? 0)
    listener.limits.messageNanoseconds = unsafe Self.nanoseconds(call[7].asNumber ?? 0)
    listener.limits.output.hardBytes = unsafe Int(call[8].asInteger ?? 0)
    listener.limits.output.softBytes = unsafe Int(call[9].asInteger ?? 0)
    listener.limits.output.softSeconds = unsafe min(call[10].asNumber ?? 0, 3.2e9)
    listener.limits.output.policy = unsafe OverflowPolicy(rawValue: call[11].text) ?? .close
    listener.backlog = unsafe Int32(clamping: call[12].asInteger ?? 4096)
    listener.connectionRate = unsafe Rate(perSecond: call[13].asNumber ?? 0, burst: Int(call[14].asInteger ?? 0))
    listener.limits.messages = unsafe Rate(perSecond: call[15].asNumber ?? 0, burst: Int(call[16].asInteger ?? 0))
    listener.limits.closesOverRate = unsafe call[17].text == "close"
    candidate.listeners.append(listener)
  }
}
