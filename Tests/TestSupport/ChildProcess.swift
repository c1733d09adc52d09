// One child process: started with posix_spawn(3), its streams collected, its end awaited, and gone with its owner.
//
// Must never know: moonport, its command line or what its output means.

import CTestSupport
import Glibc

/// How a process ended, as waitpid(2) tells it.
package enum ExitStatus: Equatable, Sendable, CustomStringConvertible {
  case exited(Int32)
  case signaled(Int32)

  init(waitStatus: Int32) {
    let signal = waitStatus & 0x7f
    self = signal == 0 ? .exited((waitStatus >> 8) & 0xff) : .signaled(signal)
  }

  package var description: String {
    switch self {
    case .exited(let code): "exit status \(code)"
    case .signaled(let signal): "signal \(signal)"
    }
  }
}

/// How a child is to be started.
package struct Launch: Sendable {
  /// What the child's standard streams are. Standard error is always a pipe of its own.
  package enum Streams: Sendable {
    /// Standard input is at its end at once, standard output is a pipe.
    case nothing
    /// Standard input and output are pipes.
    case pipe
    /// Standard input is a terminal, standard output a pipe.
    case terminalInput
    /// Standard input and output are one terminal; what it shows, echo included, is collected as the output.
    case terminal
  }

  package var executable: String
  package var arguments: [String]
  package var streams = Streams.nothing
  /// Added to the test's own environment; nil takes a variable away.
  package var environment: [String: String?] = [:]
  /// Where the child runs; nil is where the test runs.
  package var workingFolder: String?
  /// The limit of open descriptors (`RLIMIT_NOFILE`); nil is the test's own.
  package var descriptorsMax: Int?

  package init(_ executable: String, _ arguments: [String] = []) {
    self.executable = executable
    self.arguments = arguments
  }
}

/// A running or ended child. It is killed, if it still runs, when the last reference to it goes.
package final class ChildProcess: @unchecked Sendable {
  package let pid: pid_t
  /// Standard output, or the terminal.
  package let output: OutputCollector
  package let errors: OutputCollector
  private let monitor: Monitor
  private let end: End
  private var input: Int32

  /// Shared with the thread that waits for the child, which must not keep the child's owner alive.
  private final class End: @unchecked Sendable {
    var status: ExitStatus?
    /// Signals that were sent to it.
    var signals: Set<Int32> = []
  }

  /// Starts `launch`, changed by `configure`.
  package init(_ launch: Launch, _ configure: (inout Launch) -> Void = { _ in }) throws {
    var launch = launch
    configure(&launch)
    // A child that ended is told to the writer by EPIPE; the signal would end the tests.
    signal(SIGPIPE, SIG_IGN)
    let streams = try ChildStreams(launch.streams)
    defer { streams.closeChildSide() }
    do {
      pid = try spawn(launch, streams)
    } catch {
      streams.closeOwnSide()
      throw error
    }
    input = streams.ownInput
    output = OutputCollector(reading: streams.ownOutput)
    errors = OutputCollector(reading: streams.ownErrors)
    monitor = Monitor()
    end = End()
    startDetachedThread { [pid, monitor, end, launch] in
      // Waiting without reaping keeps the pid ours, so that no signal is ever sent to a stranger that got the number.
      var information = siginfo_t()
      while waitid(P_PID, id_t(pid), &information, WEXITED | WNOWAIT) < 0, errno == EINTR {}
      monitor.change {
        var status: Int32 = 0
        waitpid(pid, &status, 0)
        let ended = ExitStatus(waitStatus: status)
        EndRecord.note(ended, launch, signals: end.signals)
        end.status = ended
      }
    }
  }

  deinit {
    sendSignal(SIGKILL)
    closeInput()
  }

  /// Whether the child has not ended yet.
  package var isRunning: Bool { monitor.locked { end.status == nil } }

  /// Sends a signal with kill(2); nothing when the child has ended.
  package func sendSignal(_ signal: Int32) {
    monitor.locked {
      guard end.status == nil else { return }
      end.signals.insert(signal)
      _ = Glibc.kill(pid, signal)
    }
  }

  /// Ends the child with SIGKILL and waits until it is gone.
  package func kill() throws {
    sendSignal(SIGKILL)
    _ = try waitForExit()
  }

  /// Waits for the child's end and for all of its output; throws with both when it goes on past `timeout` seconds.
  package func waitForExit(timeout: Double = Patience.seconds) throws -> ExitStatus {
    let deadline = Deadline(seconds: timeout)
    guard monitor.wait(until: deadline, { end.status != nil }), let status = monitor.locked({ end.status }) else {
      throw TestFailure("process \(pid) did not end within \(timeout) s\n\(transcript)")
    }
    // A grandchild may keep a stream open for good; what the child wrote has arrived by then.
    _ = output.waitForEnd(timeout: Patience.scaled(1))
    _ = errors.waitForEnd(timeout: Patience.scaled(1))
    return status
  }

  /// Writes to the child's standard input; `.pipe` and the terminals have one.
  package func type(_ text: String) throws {
    guard input >= 0 else { throw TestFailure("process \(pid) has no input to write to") }
    try writeAll(Array(text.utf8), to: input, name: "standard input of process \(pid)")
  }

  /// Ends the child's standard input. On a terminal that hangs up only once the output was read to its end.
  package func closeInput() {
    if input >= 0 { close(input) }
    input = -1
  }

  /// Waits until standard output contains `text`; throws with all output when it does not come.
  package func waitForOutput(containing text: String, timeout: Double = Patience.seconds) throws {
    guard output.wait(timeout: timeout, { contains($0, text) }) else {
      throw TestFailure("\"\(text)\" did not come on standard output within \(timeout) s\n\(transcript)")
    }
  }

  /// Waits until standard error contains `text`; throws with all output when it does not come.
  package func waitForErrors(containing text: String, timeout: Double = Patience.seconds) throws {
    guard errors.wait(timeout: timeout, { contains($0, text) }) else {
      throw TestFailure("\"\(text)\" did not come on standard error within \(timeout) s\n\(transcript)")
    }
  }

  /// Both streams as text, for a failure's description.
  package var transcript: String {
    "--- its standard output:\n\(output.text)\n--- its standard error:\n\(errors.text)\n---"
  }
}

/// Whether `text` contains `part`; the standard library has this for single characters only.
package func contains(_ text: String, _ part: String) -> Bool {
  part.isEmpty || text.withCString { text in part.withCString { strstr(text, $0) } } != nil
}

/// The two sides of a child's standard streams.
private struct ChildStreams {
  private(set) var childInput: Int32 = -1
  private(set) var childOutput: Int32 = -1
  private(set) var childErrors: Int32 = -1
  private(set) var ownInput: Int32 = -1
  private(set) var ownOutput: Int32 = -1
  private(set) var ownErrors: Int32 = -1

  init(_ streams: Launch.Streams) throws {
    do {
      try openInput(streams)
      if childOutput < 0 { (ownOutput, childOutput) = try makePipe() }
      (ownErrors, childErrors) = try makePipe()
    } catch {
      closeChildSide()
      closeOwnSide()
      throw error
    }
  }

  private mutating func openInput(_ streams: Launch.Streams) throws {
    switch streams {
    case .nothing:
      childInput = open("/dev/null", O_RDONLY | O_CLOEXEC)
    case .pipe:
      (childInput, ownInput) = try makePipe()
    case .terminalInput:
      (ownInput, childInput) = try makeTerminal()
    case .terminal:
      (ownInput, childInput) = try makeTerminal()
      ownOutput = fcntl(ownInput, F_DUPFD_CLOEXEC, 3)
      childOutput = fcntl(childInput, F_DUPFD_CLOEXEC, 3)
    }
  }

  func closeChildSide() {
    for descriptor in [childInput, childOutput, childErrors] where descriptor >= 0 { close(descriptor) }
  }

  func closeOwnSide() {
    for descriptor in [ownInput, ownOutput, ownErrors] where descriptor >= 0 { close(descriptor) }
  }
}

private func makePipe() throws -> (reading: Int32, writing: Int32) {
  var ends: [Int32] = [-1, -1]
  guard pipe(&ends) == 0 else { throw TestFailure.call("pipe") }
  return (ends[0], ends[1])
}

/// A pseudo-terminal: the side that shows it, and the one that programs have.
package func makeTerminal() throws -> (own: Int32, child: Int32) {
  var name = [CChar](repeating: 0, count: Int(PATH_MAX))
  let own = test_open_terminal(&name, UInt(name.count))
  guard own >= 0 else { throw TestFailure.call("posix_openpt") }
  let child = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC)
  guard child >= 0 else { throw TestFailure.call("open the terminal") }
  return (own, child)
}

/// Starts the child with every signal at its default and none blocked, whatever the test runner did to its own.
private func spawn(_ launch: Launch, _ streams: ChildStreams) throws -> pid_t {
  var actions = posix_spawn_file_actions_t()
  posix_spawn_file_actions_init(&actions)
  defer { posix_spawn_file_actions_destroy(&actions) }
  posix_spawn_file_actions_adddup2(&actions, streams.childInput, 0)
  posix_spawn_file_actions_adddup2(&actions, streams.childOutput, 1)
  posix_spawn_file_actions_adddup2(&actions, streams.childErrors, 2)
  // Nothing else is inherited, whatever another test opens at this moment.
  test_spawn_close_from(&actions, 3)
  if let folder = launch.workingFolder { test_spawn_change_folder(&actions, folder) }

  var attributes = posix_spawnattr_t()
  posix_spawnattr_init(&attributes)
  defer { posix_spawnattr_destroy(&attributes) }
  var all = sigset_t()
  sigfillset(&all)
  var none = sigset_t()
  sigemptyset(&none)
  posix_spawnattr_setsigdefault(&attributes, &all)
  posix_spawnattr_setsigmask(&attributes, &none)
  posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK))

  var arguments = [launch.executable] + launch.arguments
  if let limit = launch.descriptorsMax {
    // The shell sets the limit and becomes the program, under the same pid.
    arguments = ["/bin/sh", "-c", "ulimit -n \(limit) && exec \"$0\" \"$@\""] + arguments
  }
  var pid: pid_t = 0
  let failure = withCStrings(arguments) { argv in
    withCStrings(mergedEnvironment(launch.environment)) { envp in
      posix_spawnp(&pid, argv[0]!, &actions, &attributes, argv, envp)
    }
  }
  guard failure == 0 else { throw TestFailure.call("posix_spawn \(launch.executable)", errno: failure) }
  return pid
}

private func mergedEnvironment(_ changes: [String: String?]) -> [String] {
  var result: [String] = []
  var entry = environ
  while let text = entry.pointee {
    let pair = String(cString: text)
    if let name = pair.split(separator: "=", maxSplits: 1).first, changes[String(name)] == nil { result.append(pair) }
    entry += 1
  }
  for case (let name, let value?) in changes { result.append("\(name)=\(value)") }
  return result
}

/// Calls `body` with `strings` as a C array of C strings that ends with a null pointer.
private func withCStrings<Result>(
  _ strings: [String], _ body: (UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>) -> Result
) -> Result {
  var pointers = strings.map { strdup($0) } + [nil]
  defer { for pointer in pointers { free(pointer) } }
  return pointers.withUnsafeMutableBufferPointer { body($0.baseAddress!) }
}
