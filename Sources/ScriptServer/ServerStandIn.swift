// Stands in for the server until it exists, so that the command line can be built and tried.

/// How a line of the server's log looks.
package enum LogFormat: String, Sendable, CaseIterable {
  case text
  case json
}

/// What `moonport run` was asked for.
package struct Configuration: Sendable {
  package var scriptPath = ""
  package var listenOverride: String?
  package var workers = 1
  package var watch = false
  package var console = false
  package var adminPath: String?
  package var reloadGraceSeconds: Double = 60
  package var logLevel = "info"
  package var logFormat = LogFormat.text
  package var arguments: [String] = []
  package var drainSeconds: Double = 10

  package init() {}
}

package enum Server {
  package static func run(_ configuration: Configuration) -> Int32 { 1 }
}

package enum ScriptCheck {
  package static func check(script: String, arguments: [String]) -> [String] { [] }
}
