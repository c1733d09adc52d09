// The command `rollback`: what it takes and what it asks of the server. Must never know how the server does it.

import ArgumentParser
import ScriptServer

/// `moonport rollback`: makes the previous generation's snapshot live again.
struct Rollback: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "rollback",
    abstract: "Go back to the script's previous generation.",
    discussion: """
      Works like reload, with the snapshot that was live before. Exit status 0 when it is live again; 1, with the \
      error, when nothing changed.
      """)

  @OptionGroup var admin: AdminOptions

  func run() throws {
    try admin.carryOut(.rollback)
  }
}
