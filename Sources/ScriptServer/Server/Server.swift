// The server as the command line sees it: from a configuration to an exit status.

import CompletionIO
import Glibc
import Logging

/// A whole server.
package enum Server {
  /// Serves until it is told to end. Prints its own errors; returns the exit status: 0 when it ended as asked, 1 for failure.
  package static func run(_ configuration: Configuration) -> Int32 {
    let sink = bootstrapLog(
      level: Logger.Level(rawValue: configuration.logLevel) ?? .info, format: configuration.logFormat)
    defer { sink.flush() }
    SignalThread.blockHandled()
    raiseDescriptorLimit()
    do {
      return try ControlThread(configuration).run()
    } catch {
      var text = "moonport: \(error)\n"
      text.withUTF8 { _ = unsafe write(STDERR_FILENO, $0.baseAddress, $0.count) }
      return 1
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
