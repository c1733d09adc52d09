// What the command line asked for. Plain settings.

/// What scripts get of Lua's standard libraries.
package enum Sandbox: String, Sendable, CaseIterable {
  /// All but what would harm the server.
  case standard
  /// Nothing that reaches beyond the script's folder.
  case strict
}

/// The settings of one server.
package struct Configuration: Sendable {
  /// The script, as the user named it.
  package var scriptPath = ""
  /// Replaces the address of the script's only listener, or makes one.
  package var listenOverride: String?
  /// Worker threads, 1 to `ConnectionID.workersMax`.
  package var workers = 1
  /// Background threads for offloaded functions, at least 1.
  package var offloadThreads = 1
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
  /// CPU time of one run of a handler, timer or task, between two waits, in seconds; 0 = no bound.
  package var handlerBudgetSeconds: Double = 1
  /// CPU time that a script may take to load, and to hand its state over, in seconds.
  package var loadBudgetSeconds: Double = 5
  /// How long a worker may be stuck in a C function before the process ends, in seconds; 0 = for ever.
  package var stuckLimitSeconds: Double = 30
  /// Memory of one worker's Lua state above which its scripts get errors, in bytes; 0 = no limit.
  package var memoryLimitBytes = 256 << 20
  /// What scripts may use of Lua's standard libraries.
  package var sandbox = Sandbox.standard
  /// How long a drain lets clients finish where nothing else was asked for, in seconds.
  package var drainSeconds: Double = 10

  package init() {}
}
