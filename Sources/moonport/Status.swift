// The command `status`: what it takes and what it asks of the server. Must never know how the server counts.

import ArgumentParser
import ScriptServer

/// `moonport status`: how the server does.
struct Status: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "status",
    abstract: "Show how the server does: generation, workers, listeners, traffic, errors.",
    discussion: """
      The JSON is one object; its keys are version, generation, uptime (seconds), connections (open now), \
      messages_in, messages_out, bytes_in, bytes_out, workers, listeners, errors, refused (by reason), and more.
      """)

  @OptionGroup var admin: AdminOptions

  @Flag(help: "Print JSON for a program instead of a screen for a person. (default: off)")
  var json = false

  func run() throws {
    try admin.carryOut(.status(json: json))
  }
}
