// The command `stop`: what it takes and what it asks of the server. Must never know how the server does it.

import ArgumentParser
import ScriptServer

/// `moonport stop`: ends the server now.
struct Stop: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "stop",
    abstract: "End the server now.",
    discussion: """
      Clients are disconnected at once; to let them finish use drain.
      """)

  @OptionGroup var admin: AdminOptions

  func run() throws {
    try admin.carryOut(.stop)
  }
}
