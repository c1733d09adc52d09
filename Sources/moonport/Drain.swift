// The command `drain`: what it takes and what it asks of the server. Must never know how the server ends.

import ArgumentParser
import ScriptServer

/// `moonport drain`: ends the server once its clients have finished.
struct Drain: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "drain",
    abstract: "Stop accepting, let the clients finish, then end the server.",
    discussion: """
      Clients that have not left when the time is over are disconnected.
      """)

  @OptionGroup var admin: AdminOptions

  @Option(help: ArgumentHelp("Seconds that clients have to finish. (default: 10)", valueName: "seconds"))
  var timeout: Double?

  func validate() throws {
    guard let timeout else { return }
    guard AdminRequest.isDrainSeconds(timeout) else {
      throw ValidationError("--timeout takes seconds from 0 to \(Int(AdminRequest.drainSecondsMax)), not \(timeout)")
    }
  }

  func run() throws {
    try admin.carryOut(.drain(seconds: timeout))
  }
}
