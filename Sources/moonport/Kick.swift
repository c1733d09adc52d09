// The command `kick`: what it takes and what it asks of the server. Must never know how the server closes.

import ArgumentParser
import ScriptServer

/// `moonport kick`: closes one client's connection.
struct Kick: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "kick",
    abstract: "Disconnect one client.",
    discussion: """
      What is queued for the client is sent first. Exit status 1 when no connection has that id.
      """)

  @OptionGroup var admin: AdminOptions

  @Argument(help: "The connection's id, a whole number from 1; `moonport connections` lists them.")
  var id: Int64

  func validate() throws {
    guard id > 0 else { throw ValidationError("a connection id is a whole number from 1, not \(id)") }
  }

  func run() throws {
    try admin.carryOut(.kick(id: id))
  }
}
