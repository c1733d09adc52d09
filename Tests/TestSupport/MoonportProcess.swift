// The built moonport program, run as a user runs it: `moonport run SCRIPT` in its own folder, and the other commands.
//
// Must never know: anything of the program that is not on its command line, its streams or its sockets.

import Glibc

/// How one command of the program ended, with all it wrote.
package struct ToolResult: Sendable, CustomStringConvertible {
  package let status: ExitStatus
  package let output: String
  package let errors: String

  package var description: String { "\(status)\n--- standard output:\n\(output)\n--- standard error:\n\(errors)\n---" }
}

/// A server with a script folder and an admin socket of its own. It ends, by SIGKILL, with the last reference to it.
package final class MoonportProcess: Sendable {
  /// What a test may choose about a server. The admin socket is always the server's own.
  package struct Options: Sendable {
    /// `--listen`; nil leaves the addresses to the script.
    package var listen: String?
    /// `--workers`; nil is one per core.
    package var workers: Int?
    /// Further options of `moonport run`.
    package var arguments: [String] = []
    /// What follows `--`, the script's `arg`.
    package var scriptArguments: [String] = []
    /// Added to the test's environment; nil takes a variable away.
    package var environment: [String: String?] = [:]
    package var streams = Launch.Streams.nothing
    /// `RLIMIT_NOFILE` of the server; nil is the test's own.
    package var descriptorsMax: Int?
    /// How many `listening on ADDRESS` lines to wait for; 0 does not wait, for a server that must not come up.
    package var listeners = 1

    package init() {}
  }

  /// The server's folder: its script unless that is a file elsewhere, its admin socket, and room for the test's files.
  package let folder: TemporaryFolder
  /// The script that was given to `moonport run`.
  package let scriptPath: String
  /// What follows "listening on ", one for each listener, in the order they were printed.
  package let addresses: [String]
  package let child: ChildProcess

  /// Starts a server for the script text, written as `main.lua` into `folder`, with what `configure` chooses.
  package convenience init(
    script text: String, folder: TemporaryFolder? = nil, _ configure: (inout Options) -> Void = { $0.listen = anyPort }
  ) throws {
    let folder = try folder ?? TemporaryFolder()
    try self.init(file: folder.write("main.lua", text), folder: folder, configure)
  }

  /// Starts a server for a script that exists, for example one of the examples.
  package init(
    file scriptPath: String, folder: TemporaryFolder? = nil,
    _ configure: (inout Options) -> Void = { $0.listen = anyPort }
  ) throws {
    var options = Options()
    configure(&options)
    let folder = try folder ?? TemporaryFolder()
    self.folder = folder
    self.scriptPath = scriptPath
    child = try ChildProcess(MoonportProcess.launch(options, script: scriptPath, folder: folder))
    addresses = try MoonportProcess.waitForAddresses(options.listeners, of: child)
  }

  /// The first listener's address.
  package var address: String { addresses.first ?? "the server was started without waiting for an address" }
  package var pid: pid_t { child.pid }
  /// Standard output until now.
  package var output: String { child.output.text }
  /// Standard error until now.
  package var errors: String { child.errors.text }
  /// The path given as `--admin`.
  package var adminPath: String { MoonportProcess.adminPath(in: folder) }

  package func sendSignal(_ signal: Int32) { child.sendSignal(signal) }
  package func type(_ text: String) throws { try child.type(text) }
  package func kill() throws { try child.kill() }

  package func waitForExit(timeout: Double = Patience.seconds) throws -> ExitStatus {
    try child.waitForExit(timeout: timeout)
  }

  package func waitForOutput(containing text: String, timeout: Double = Patience.seconds) throws {
    try child.waitForOutput(containing: text, timeout: timeout)
  }

  package func waitForErrors(containing text: String, timeout: Double = Patience.seconds) throws {
    try child.waitForErrors(containing: text, timeout: timeout)
  }

  /// Ends the server by `moonport stop`, which waits for no client, and throws unless that succeeds and the server ends with status
  /// 0: under a sanitizer, without a report.
  package func stop(timeout: Double = Patience.seconds) throws {
    let result = try control("stop", timeout: timeout)
    let status = try child.waitForExit(timeout: timeout)
    guard result.status == .exited(0), status == .exited(0) else {
      throw TestFailure("the server ended with \(status), moonport stop with \(result)\n\(child.transcript)")
    }
  }

  /// A client connected to the listener with this index.
  package func connect(listener index: Int = 0) throws -> TestClient {
    guard index < addresses.count else { throw TestFailure("the server has no listener \(index)\n\(child.transcript)") }
    return try TestClient(addresses[index])
  }

  /// Runs a control command on this server: `control("status", "--json")`.
  package func control(_ arguments: String..., timeout: Double = Patience.seconds) throws -> ToolResult {
    let command = Array(arguments.prefix(1)) + ["--admin", adminPath] + arguments.dropFirst()
    return try MoonportProcess.runTool(command, timeout: timeout)
  }

  /// Runs the program with any arguments until it ends, with `input` as its whole standard input.
  package static func runTool(
    _ arguments: [String], input: String? = nil, environment: [String: String?] = [:], workingFolder: String? = nil,
    timeout: Double = Patience.seconds
  ) throws -> ToolResult {
    var launch = Launch(try executable(), arguments)
    launch.streams = input == nil ? .nothing : .pipe
    launch.environment = environment
    launch.workingFolder = workingFolder
    let child = try ChildProcess(launch)
    if let input {
      // A command may end without reading all of its input; that is no failure of the test.
      try? child.type(input)
      child.closeInput()
    }
    let status = try child.waitForExit(timeout: timeout)
    return ToolResult(status: status, output: child.output.text, errors: child.errors.text)
  }

  /// The address that lets the kernel pick a port of the loopback.
  package static let anyPort = "127.0.0.1:0"

  /// A program that stands in for the one under test, for the test that sets it and nobody who runs beside it.
  @TaskLocal package static var standIn: String?

  /// The program under test: the stand-in, `MOONPORT_EXECUTABLE`, or the one beside this test program, so with its sanitizer.
  package static func executable() throws -> String {
    if let standIn { return standIn }
    if let path = getenv("MOONPORT_EXECUTABLE") { return String(cString: path) }
    var buffer = [CChar](repeating: 0, count: Int(PATH_MAX) + 1)
    guard readlink("/proc/self/exe", &buffer, Int(PATH_MAX)) > 0 else { throw TestFailure.call("readlink") }
    let own = buffer.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
    let path = own.split(separator: "/").dropLast().map { "/\($0)" }.joined() + "/moonport"
    guard access(path, X_OK) == 0 else { throw TestFailure.call("the program under test, \(path)") }
    return path
  }

  /// What every server of this run has preloaded: `scripts/test --only bytes` says so. See scripts/faults.c.
  private static var preloaded: [String: String?] {
    guard Patience.sanitizer == nil, let library = getenv("MOONPORT_TEST_PRELOAD") else { return [:] }
    return ["LD_PRELOAD": String(cString: library)]
  }

  private static func adminPath(in folder: TemporaryFolder) -> String { folder.file("admin.sock") }

  private static func launch(_ options: Options, script: String, folder: TemporaryFolder) throws -> Launch {
    var arguments = ["run", script, "--admin", adminPath(in: folder)]
    if let address = options.listen { arguments += ["--listen", address] }
    if let workers = options.workers { arguments += ["--workers", String(workers)] }
    arguments += options.arguments
    if !options.scriptArguments.isEmpty { arguments += ["--"] + options.scriptArguments }
    var launch = Launch(try executable(), arguments)
    launch.streams = options.streams
    launch.environment = preloaded.merging(options.environment) { _, chosen in chosen }
    launch.descriptorsMax = options.descriptorsMax
    return launch
  }

  private static func waitForAddresses(_ count: Int, of child: ChildProcess) throws -> [String] {
    guard count > 0 else { return [] }
    let isUp = child.errors.wait { announcedAddresses(in: $0).count >= count }
    guard isUp else {
      throw TestFailure("the server did not listen on \(count) addresses\n\(child.transcript)")
    }
    return announcedAddresses(in: child.errors.text)
  }

  /// The addresses of the whole lines "listening on ADDRESS" in what a server wrote.
  static func announcedAddresses(in text: String) -> [String] {
    let announcement = "listening on "
    let wholeLines = text.split(separator: "\n", omittingEmptySubsequences: false).dropLast()
    return wholeLines.filter { $0.hasPrefix(announcement) }.map { String($0.dropFirst(announcement.count)) }
  }
}
