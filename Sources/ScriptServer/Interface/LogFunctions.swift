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
    for index in stride(from: 1, to: call.variadicCount - 1, by: 2) {
      fields[text(call, index)] = .string(text(call, index + 1))
    }
    log.log(level: level, "\(text(call, 0))", metadata: fields, source: LineLogHandler.scriptSource)
  }

  private func text(_ call: HostCall, _ index: Int) -> String {
    unsafe String(decoding: call.variadic(index), as: UTF8.self)
  }
}
