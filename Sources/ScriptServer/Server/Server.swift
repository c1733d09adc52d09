// The server as the command line sees it: from a configuration to an exit status.

import CompletionIO
import Glibc
import Logging

/// A whole server.
package enum Server {
  /// Serves until it is told to end. Prints its own errors; returns the exit status: 0 when it ended as asked, else one of
  /// `ExitStatus`.
  package static func run(_ configuration: Configuration) -> Int32 {
    let sink = bootstrapLog(
      level: Logger.Level(rawValue: configuration.logLevel) ?? .info, format: configuration.logFormat)
    defer { sink.flush() }
    SignalThread.blockHandled()
    SignalThread.ignoreOthers()
    raiseDescriptorLimit()
    do {
      return try ControlThread(configuration).run()
    } catch {
      StandardOutput.errors.write(line: "moonport: \(error)")
      return ExitStatus.failure
    }
  }

  /// As many descriptors as the system lets us have: each client is one.
  private static func raiseDescriptorLimit() {
    var limit = rlimit()
    guard unsafe getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return }
    limit.rlim_cur = limit.rlim_max
    _ = unsafe setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
  }
}
