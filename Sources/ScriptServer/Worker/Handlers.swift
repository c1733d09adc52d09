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

  /// The handlers in the order in which the prelude hands them over; nil for those the script does not have.
  init(_ functions: (Int) -> LuaReference?) {
    open = functions(0) ?? .none
    message = functions(1) ?? .none
    drain = functions(2) ?? .none
    close = functions(3) ?? .none
    error = functions(4) ?? .none
    start = functions(5) ?? .none
    console = functions(6) ?? .none
    stop = functions(7) ?? .none
  }

  init() {}

  /// Those that there are.
  var references: [LuaReference] {
    [open, message, drain, close, error, start, console, stop].filter(\.exists)
  }

  /// How many handlers there are.
  static let count = 8
}

/// What a script asked for with `moonport.listen`; `codec` and `handlers` are the worker's own.
struct ListenerSettings: Sendable {
  /// Where it listens.
  var address = ""
  /// Where the script says it listens; `--listen` may differ.
  var declaredAddress = ""
  /// The place of the script's call, "chat.lua:3".
  var place = ""
  /// Made for `--listen`, because the script has no listener.
  var isMade = false
  var codec: UInt16 = 0
  /// The codec's type, for people.
  var codecName = "raw"
  /// Index among the generation's handler sets; 0 is the returned table's.
  var handlers = 0
  var connectionsMax = 0
  var connectionsPerAddressMax = 0
  /// New connections of one address; nil = as many as come.
  var connectionRate: Rate?
  var backlog: Int32 = 4096
  var limits = ConnectionLimits()

  /// Whether the system is to pick the port.
  var asksForAnyPort: Bool { !address.hasPrefix("unix:") && address.hasSuffix(":0") }
}

/// The limits of a listener's connections that the worker looks at. Trivial.
struct ConnectionLimits: Sendable {
  /// No complete message for this long ends a connection; 0 = never. In nanoseconds.
  var idleNanoseconds: UInt64 = 0
  /// A message begun must be complete within this long; 0 = no bound. In nanoseconds.
  var messageNanoseconds: UInt64 = 0
  var output = OutputLimit()
  /// Messages of one connection; nil = as many as come.
  var messages: Rate?
  /// Whether more messages than that end the connection, instead of waiting in the kernel until it is their time.
  var closesOverRate = false
}
