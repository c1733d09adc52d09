// The command `check`: what it takes and how its findings are printed. Must never know how a script is loaded.

import ArgumentParser
import Glibc
import ScriptServer

/// `moonport check`: loads a script without serving it.
struct Check: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "check",
    abstract: "Load a script without serving it, and say what is wrong with it.",
    discussion: """
      For an editor or a pre-commit hook: exit status 0 when the script loads; 1 with one `file:line: message` \
      per finding on standard error.
      """)

  @Argument(help: ArgumentHelp("The handler script to check.", valueName: "script"))
  var script: String

  @OptionGroup var bounds: ScriptBounds

  @Argument(
    parsing: .postTerminator,
    help: ArgumentHelp("After `--`: what the script finds in `arg`. (default: none)", valueName: "arg"))
  var arguments: [String] = []

  func run() throws {
    var configuration = Configuration()
    configuration.scriptPath = script
    configuration.arguments = arguments
    bounds.apply(to: &configuration)
    let findings = ScriptCheck.check(configuration)
    for finding in findings {
      StandardStream.printLine(finding, to: STDERR_FILENO)
    }
    if !findings.isEmpty { throw ExitCode.failure }
  }
}
