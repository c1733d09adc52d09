// print and moonport.log.

import Logging
import LuaRuntime

extension Interface {
  static let logFunctions: [HostFunction] = unsafe [
    HostFunction("print", "s") { context, call in
      let worker = unsafe Worker.of(context)
      guard !worker.server.isScratch, let bytes = unsafe HostCall(call!)[0].asBytes else { return }
      unsafe StandardOutput.shared.write(line: bytes)
    },
    unsafe HostFunction("log", "ss*") { context, call in
      let worker = unsafe Worker.of(context)
      guard !worker.server.isScratch else { return }
      unsafe worker.logFromScript(HostCall(call!))
    },
  ]
}

extension Worker {
  fileprivate func logFromScript(_ call: HostCall) {
    let level: Logger.Level =
      switch unsafe call[0].text {
      case "debug": .debug
      case "warn": .warning
      case "error": .error
      default: .info
      }
    guard level >= log.logLevel else { return }
    var fields: Logger.Metadata = [:]
    var index = 1
    while index + 1 < call.variadicCount {
      let name = text(call, index)
      index += 1
      fields[name] = field(call, &index)
    }
    log.log(level: level, "\(text(call, 0))", metadata: fields, source: LineLogHandler.scriptSource)
  }

  /// The value that the prelude laid out at `index`, which then stands behind it.
  private func field(_ call: HostCall, _ index: inout Int) -> Logger.MetadataValue {
    guard index < call.variadicCount else { return .string("") }
    let text = text(call, index)
    let rest = String(text.dropFirst())
    index += 1
    switch text.first {
    case "i": return Int64(rest).map { .stringConvertible($0) } ?? .string(rest)
    case "n": return Double(rest).map { .stringConvertible($0) } ?? .string(rest)
    case "b": return .stringConvertible(rest == "true")
    case "[":
      var items: [Logger.MetadataValue] = []
      while index < call.variadicCount, self.text(call, index) != "]" { items.append(field(call, &index)) }
      index += 1
      return .array(items)
    case "{":
      var fields: Logger.Metadata = [:]
      while index < call.variadicCount, self.text(call, index) != "}" {
        let name = self.text(call, index).dropFirst()
        index += 1
        fields[String(name)] = field(call, &index)
      }
      index += 1
      return .dictionary(fields)
    default: return .string(rest)
    }
  }

  private func text(_ call: HostCall, _ index: Int) -> String {
    unsafe String(decoding: call.variadic(index), as: UTF8.self)
  }
}
