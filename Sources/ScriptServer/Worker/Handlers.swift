// The functions of one handler table, as references into Lua. Looked up once, when the generation is loaded, so that calling
// one costs no look-up by name.

import LuaRuntime

/// The handlers of one listener. `none` where the script has none.
struct HandlerSet {
  var open = LuaReference.none
  var message = LuaReference.none
  var drain = LuaReference.none
  var close = LuaReference.none
  var error = LuaReference.none
  var start = LuaReference.none
  var console = LuaReference.none
  var stop = LuaReference.none

  /// The order in which the prelude hands them over.
  static let fields: [WritableKeyPath<HandlerSet, LuaReference>] = [
    \.open, \.message, \.drain, \.close, \.error, \.start, \.console, \.stop,
  ]
}

/// What a script asked for with `moonport.listen`; `codec` and `handlers` are the worker's own.
struct ListenerSettings {
  var address = ""
  var codec: UInt16 = 0
  /// Index among the generation's handler sets; 0 is the returned table's.
  var handlers = 0
  var connectionsMax = 0
  var connectionsPerAddressMax = 0
  var backlog: Int32 = 4096
  var limits = ConnectionLimits()
}

/// The limits of a listener's connections that the worker looks at. Trivial.
struct ConnectionLimits {
  /// No complete message for this long ends a connection; 0 = never. In nanoseconds.
  var idleNanoseconds: UInt64 = 0
  /// A message begun must be complete within this long; 0 = no bound. In nanoseconds.
  var messageNanoseconds: UInt64 = 0
  var output = OutputLimit()
}
