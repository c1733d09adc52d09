// The part of the Lua interface that is written in Lua: the files beside this one, embedded in the program. Each reads what it needs
// of earlier ones from one table and puts there what others need. Nothing in them is on the way of a message, but for codecs
// written in Lua and the iterator of `conn:messages()`.

import LuaRuntime

/// The functions of the prelude that the server calls.
struct Prelude {
  let load: LuaReference
  let handOver: LuaReference
  let handOverNote: LuaReference
  let forget: LuaReference
  let decode: LuaReference
  let encode: LuaReference
  let offload: LuaReference

  /// The files, each behind those that it needs.
  private static var parts: [[UInt8]] {
    [
      PackageResources.Options_lua,
      PackageResources.Codecs_lua,
      PackageResources.Connections_lua,
      PackageResources.Listeners_lua,
      PackageResources.Handlers_lua,
      PackageResources.Modules_lua,
      PackageResources.Timers_lua,
      PackageResources.Channels_lua,
      PackageResources.Outgoing_lua,
      PackageResources.Tasks_lua,
      PackageResources.Broadcasts_lua,
      PackageResources.Logging_lua,
      PackageResources.SharedDictionaries_lua,
      PackageResources.Moonport_lua,
      PackageResources.Environments_lua,
      PackageResources.Generations_lua,
      PackageResources.Offload_lua,
    ]
  }

  /// Runs the files in a state.
  init(_ lua: LuaState) throws {
    let table = try lua.runPrelude(Self.parts, name: "=moonport")
    defer { lua.release(table) }
    load = lua.function("load_generation", of: table)
    handOver = lua.function("hand_over", of: table)
    handOverNote = lua.function("hand_over_note", of: table)
    forget = lua.function("forget", of: table)
    decode = lua.function("decode", of: table)
    encode = lua.function("encode", of: table)
    offload = lua.function("offload", of: table)
    for function in [load, handOver, handOverNote, forget, decode, encode, offload] where !function.exists {
      throw ServerFailure.noMemory
    }
  }
}
