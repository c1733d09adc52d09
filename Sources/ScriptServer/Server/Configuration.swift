// What the command line asked for. Plain settings.

/// The settings of one server.
package struct Configuration: Sendable {
  /// The script, as the user named it.
  package var scriptPath = ""
  /// Replaces the address of the script's only listener, or makes one.
  package var listenOverride: String?
  /// Worker threads, 1 to `ConnectionID.workersMax`.
  package var workers = 1
  /// The user to become once the addresses are bound; nil to stay.
  package var userName: String?
  /// Clients of all listeners together; 0 = as many as there are descriptors for.
  package var connectionsMax = 0
  /// Reload when a file of the script changes.
  package var watch = false
  /// Hand lines of standard input to `on_console`.
  package var console = false
  /// The admin socket's path; nil for the default one.
  package var adminPath: String?
  /// How long suspended handlers may go on with older code after a reload, in seconds.
  package var reloadGraceSeconds: Double = 60
  /// A level of swift-log.
  package var logLevel = "info"
  package var logFormat = LogFormat.text
  /// What scripts find in `arg`.
  package var arguments: [String] = []
  /// How long a drain lets clients finish where nothing else was asked for, in seconds.
  package var drainSeconds: Double = 10

  package init() {}
}
