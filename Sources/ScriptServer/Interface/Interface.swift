// The list of functions that scripts get from Swift, group by group. What a function does is in its group's file; options,
// environments and `require` are in Prelude.lua.

import LuaRuntime

/// Everything that Swift offers to scripts.
enum Interface {
  /// One for the whole program: every state shares the descriptions.
  static let library = HostLibrary(groups.flatMap(\.self))

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

/// The functions of Prelude.lua that the server calls.
struct Prelude {
  let load: LuaReference
  let handOver: LuaReference
  let forget: LuaReference
  let decode: LuaReference
  let encode: LuaReference
  let offload: LuaReference

  /// Runs Prelude.lua in a state.
  init(_ lua: LuaState) throws {
    let table = try lua.runPrelude(PackageResources.Prelude_lua, name: "=moonport")
    load = lua.function("load", of: table)
    handOver = lua.function("hand_over", of: table)
    forget = lua.function("forget", of: table)
    decode = lua.function("decode", of: table)
    encode = lua.function("encode", of: table)
    offload = lua.function("offload", of: table)
    lua.release(table)
    for function in [load, handOver, forget, decode, encode, offload] where !function.exists {
      throw ServerFailure.noMemory
    }
  }
}
