// The root of the command line: its name, its version and its list of commands. Must never know what a command does.

import ArgumentParser
import ScriptServer

/// `moonport`: alone it prints its help. Exit status: 0 as asked, 1 failure, 3 cut off, 64 usage (EX_USAGE of sysexits.h).
@main
struct Moonport: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "moonport",
    abstract: "A TCP server whose behaviour is a Lua script, replaced live while clients stay connected.",
    discussion: """
      Exit status: 0 when it did what was asked, 1 on failure, 3 when a server ended and clients or handlers had to be \
      cut off, 64 for wrong usage.
      """,
    version: "moonport \(Version.text)",
    groupedSubcommands: [
      CommandGroup(name: "Server", subcommands: [Run.self, Check.self]),
      CommandGroup(
        name: "Control",
        subcommands: [
          Reload.self, Rollback.self, Status.self, Connections.self, Kick.self, Broadcast.self, Drain.self, Stop.self,
        ]),
      CommandGroup(name: "Client", subcommands: [Connect.self, Bench.self]),
    ])

  static func main() {
    StandardStream.openMissing()
    main(nil)
  }
}
