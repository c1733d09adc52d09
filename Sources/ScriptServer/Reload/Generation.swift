// One generation of code on one worker: which snapshot it was loaded from, and what of Lua belongs to it.

import LuaRuntime

/// A loaded script. Owned by the worker's thread.
final class Generation {
  /// Counts up over the life of the server; a rollback gets a new number too.
  let number: Int
  let snapshot: Snapshot
  /// Handler tables in the order they were handed over; 0 is the one that the script returned.
  var sets: [HandlerSet] = []
  /// Handler tables within the one that the script returned, by their names in it, for outgoing connections.
  var namedHandlers: [String: HandlerSet] = [:]
  /// In the order of the script's calls of `moonport.listen`.
  var listeners: [ListenerSettings] = []
  /// Handlers, to be given back with the generation.
  var references: [LuaReference] = []
  /// Codecs in Lua that it brought.
  var codecs: [UInt16] = []
  /// The caps of shared dictionaries that the script asked for while it loaded, in bytes: in force once it is live.
  var dictionaryCaps: [[UInt8]: Int] = [:]

  init(number: Int, snapshot: Snapshot) {
    self.number = number
    self.snapshot = snapshot
  }
}
