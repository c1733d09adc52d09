// The command `run`: its options, checked, become the server's configuration. Must never know how the server works,
// nor do anything slow: from start to `listening` there are 20 ms.

import ArgumentParser
import ScriptServer

/// `moonport run`: serves a script.
struct Run: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "run",
    abstract: "Serve a Lua handler script.",
    discussion: """
      Prints `listening on ADDRESS` on standard error for each listener once it accepts. SIGHUP reloads the script; \
      SIGTERM and SIGINT let clients finish for 10 seconds, a second one ends at once.
      """)

  /// More workers than any machine has cores for; each has a thread and a Lua state.
  static let workersMax = 256
  /// Longest grace that can be asked for, in seconds: a week; suspended handlers of older code end earlier anyway, at
  /// the next reload.
  static let reloadGraceSecondsMax: Double = 7 * 24 * 3600
  /// The levels of the log, from the most talkative.
  static let logLevels = ["trace", "debug", "info", "notice", "warning", "error", "critical"]

  @Argument(help: ArgumentHelp("The handler script.", valueName: "script"))
  var script: String

  @Option(
    help: ArgumentHelp(
      """
      Listen here instead of at the script's only listener, or make one: a number and port like 127.0.0.1:6000 or [::1]:6000, :PORT (every \
      interface) or unix:PATH; port 0 picks one. (default: what the script says)
      """, valueName: "address"))
  var listen: String?

  @Option(help: ArgumentHelp("Worker threads, 1 to 256. (default: one per core)", valueName: "number"))
  var workers: Int?

  @Option(
    help: ArgumentHelp(
      "Background threads for moonport.offload, 1 to 256, started when needed. (default: one per core)",
      valueName: "number"))
  var offloadThreads: Int?

  @Option(
    help: ArgumentHelp(
      "Become this user once the addresses are bound, for good; for a server that root starts. (default: stay)",
      valueName: "name"))
  var user: String?

  @Option(
    help: ArgumentHelp(
      "Clients of all listeners together; more are let in and closed at once. (default: what the limit of open files leaves)",
      valueName: "number"))
  var maxConnections: Int?

  @Flag(help: "Reload when a file of the script changes. (default: off)")
  var watch = false

  @Flag(help: "Pass lines typed at this terminal to on_console, or to all clients. (default: off)")
  var console = false

  @Option(
    help: ArgumentHelp(
      "Where to make the admin socket. (default: PID.sock in this user's runtime folder)", valueName: "path"))
  var admin: String?

  @Option(
    help: ArgumentHelp(
      "Seconds that suspended handlers may go on running older code after a reload.", valueName: "seconds"))
  var reloadGrace: Double = 60

  @Option(
    help: ArgumentHelp(
      "CPU seconds that a handler, timer or task may take between two waits; 0 is no bound.", valueName: "seconds"))
  var handlerBudget: Double = 1

  @OptionGroup var bounds: ScriptBounds

  @Option(help: ArgumentHelp("The least that is logged: \(logLevels.joined(separator: ", ")).", valueName: "level"))
  var logLevel = "info"

  @Option(help: ArgumentHelp("How the log is written: text or json.", valueName: "format"))
  var logFormat = LogFormat.text

  @Argument(
    parsing: .postTerminator,
    help: ArgumentHelp("After `--`: what the script finds in `arg`. (default: none)", valueName: "arg"))
  var arguments: [String] = []

  mutating func validate() throws {
    guard !script.isEmpty else { throw ValidationError("the script's name is empty") }
    if let workers, !(1...Self.workersMax).contains(workers) {
      throw ValidationError("--workers takes 1 to \(Self.workersMax), not \(workers)")
    }
    if let offloadThreads, !(1...Self.workersMax).contains(offloadThreads) {
      throw ValidationError("--offload-threads takes 1 to \(Self.workersMax), not \(offloadThreads)")
    }
    if user == "" { throw ValidationError("--user takes a user's name") }
    if let maxConnections, maxConnections < 1 {
      throw ValidationError("--max-connections takes 1 or more, not \(maxConnections)")
    }
    guard reloadGrace >= 0, reloadGrace <= Self.reloadGraceSecondsMax else {
      throw ValidationError(
        "--reload-grace takes seconds from 0 to \(Int(Self.reloadGraceSecondsMax)), not \(reloadGrace)")
    }
    guard handlerBudget == 0 || ScriptBounds.budgetSeconds.contains(handlerBudget) else {
      throw ValidationError("--handler-budget takes 0 or seconds from 0.001 to 3600, not \(handlerBudget)")
    }
    if logLevel == "warn" { logLevel = "warning" }
    guard Self.logLevels.contains(logLevel) else {
      throw ValidationError("--log-level takes \(Self.logLevels.joined(separator: ", ")), not \"\(logLevel)\"")
    }
    if let admin { try validated(adminPath: admin) }
    if let listen, let problem = ListenOverride.problem(with: listen) {
      throw ValidationError("--listen: \(problem)")
    }
  }

  func run() throws {
    var configuration = Configuration()
    configuration.scriptPath = script
    configuration.listenOverride = listen
    configuration.workers = workers ?? min(CoreCount.usable, Self.workersMax)
    configuration.offloadThreads = offloadThreads ?? min(CoreCount.usable, Self.workersMax)
    configuration.userName = user
    configuration.connectionsMax = maxConnections ?? 0
    configuration.watch = watch
    configuration.console = console
    configuration.adminPath = admin
    configuration.reloadGraceSeconds = reloadGrace
    configuration.handlerBudgetSeconds = handlerBudget
    bounds.apply(to: &configuration)
    configuration.logLevel = logLevel
    configuration.logFormat = logFormat
    configuration.arguments = arguments
    let status = Server.run(configuration)
    if status != 0 { throw ExitCode(status) }
  }
}

extension LogFormat: ExpressibleByArgument {}
