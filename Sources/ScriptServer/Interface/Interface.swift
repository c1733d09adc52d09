// The list of functions that scripts get from Swift, group by group. What a function does is in its group's file; options,
// environments and `require` are in the prelude.

import LuaRuntime

/// Everything that Swift offers to scripts.
enum Interface {
  /// One for the whole program: every state shares the descriptions.
  static let offered = HostLibrary(groups.flatMap(\.self))

  private static let groups: [[HostFunction]] = [
    connectionFunctions,
    receiveFunctions,
    roomFunctions,
    serverFunctions,
    outgoingFunctions,
    loadingFunctions,
    timerFunctions,
    taskFunctions,
    channelFunctions,
    offloadFunctions,
    logFunctions,
    sharedFunctions,
  ]
}

/// What went wrong between the server and the system or the script.
enum ServerFailure: Error, CustomStringConvertible {
  case noMemory
  case script(String)

  var description: String {
    switch self {
    case .noMemory: "not enough memory for a Lua state"
    case .script(let message): message
    }
  }
}
