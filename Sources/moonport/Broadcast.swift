// The command `broadcast`: what it takes and what it asks of the server. Must never know how the server sends.

import ArgumentParser
import ScriptServer

/// `moonport broadcast`: sends a message to all clients or to those of a room.
struct Broadcast: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "broadcast",
    abstract: "Send a message to every client, or to the members of a room.",
    discussion: """
      Each client gets it framed by its own codec, as from moonport.broadcast in a script. \
      A text that begins with a dash goes after `--`.
      """)

  @OptionGroup var admin: AdminOptions

  @Option(help: "Only to the members of this room. (default: every client)")
  var room: String?

  @Argument(help: "The message, at most 1 MiB.")
  var text: String

  func run() throws {
    try admin.carryOut(.broadcast(text: text, room: room))
  }
}
