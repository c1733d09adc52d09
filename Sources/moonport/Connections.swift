// The command `connections`: what it takes and what it asks of the server. Must never know how the server does it.

import ArgumentParser
import ScriptServer

/// `moonport connections`: lists the live clients.
struct Connections: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "connections",
    abstract: "List the clients that are connected now.",
    discussion: """
      One row per client: its id (for kick), addresses, worker, age, time since its last message, messages and \
      bytes both ways, bytes that wait for it to read, and its rooms.
      """)

  @OptionGroup var admin: AdminOptions

  func run() throws {
    try admin.carryOut(.connections)
  }
}
