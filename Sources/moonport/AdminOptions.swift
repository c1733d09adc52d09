// What every command that talks to a running server shares. Must never know a single command.

import ArgumentParser
import ScriptServer

/// `--admin PATH` on the operator's side.
struct AdminOptions: ParsableArguments {
  @Option(
    name: .customLong("admin"),
    help: ArgumentHelp(
      "The server's admin socket. (default: found by itself when only one server of this user runs)",
      valueName: "path"))
  var path: String?

  func validate() throws {
    if let path { try validated(adminPath: path) }
  }

  /// Carries out `request`; ends the program with the status that the server answered.
  func carryOut(_ request: AdminRequest) throws {
    let status = AdminClient.run(request, adminPath: path)
    if status != 0 { throw ExitCode(status) }
  }
}

/// Throws a usage error unless `adminPath` can name a socket.
func validated(adminPath: String) throws {
  do throws(AdminFailure) {
    try AdminPath.validate(adminPath)
  } catch {
    throw ValidationError(error.message)
  }
}
