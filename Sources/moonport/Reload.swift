// The command `reload`: what it takes and what it asks of the server. Must never know how the server does it.

import ArgumentParser
import ScriptServer

/// `moonport reload`: makes what the script's files hold now the live generation.
struct Reload: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "reload",
    abstract: "Replace the running script with what its files hold now.",
    discussion: """
      Clients stay connected. Exit status 0 when the new generation is live; 1, with the error and its line, \
      when the old one stays. Answers when it is decided, however long the script takes to load.
      """)

  @OptionGroup var admin: AdminOptions

  func run() throws {
    try admin.carryOut(.reload)
  }
}
