// What `moonport status` and `moonport connections` show, as plain figures. Must never know where they come from or
// how they are shown.

/// The figures of one worker.
package struct WorkerStatus: Sendable, Equatable {
  /// 1-based.
  package var id = 1
  /// Open now.
  package var connections = 0
  package var messagesIn: Int64 = 0
  package var messagesOut: Int64 = 0
  /// What this worker's Lua state holds, in bytes.
  package var memoryBytes: Int64 = 0
  /// Suspended handlers and tasks that still run an older generation's code.
  package var handlersOnOlderGenerations = 0
  /// Messages that its code published to channels.
  package var published: Int64 = 0
  /// Subscriptions' functions started, one for each message and subscription.
  package var delivered: Int64 = 0
  package var subscriptions = 0
  /// Messages not queued or dropped because of an output limit, or because another worker was too far behind.
  package var dropped: Int64 = 0
  /// Runs that were ended by `--handler-budget` or `--load-budget`.
  package var budgetErrors: Int64 = 0
  /// How often its scripts ran out of memory.
  package var memoryErrors: Int64 = 0
  /// The script's line of a handler that is stuck in a C function, empty where it is not known; nil while none is.
  package var stuckAt: String?
  /// How long that handler goes on, in seconds.
  package var stuckSeconds: Double = 0
  /// How often a thread had to wait for another one at this worker's mailbox.
  package var mailboxContentions = 0
  /// Turns of the worker's loop since it started.
  package var turns: Int64 = 0
  /// Time spent in turns, not waiting, since the start, in seconds.
  package var busySeconds: Double = 0
  /// The longest turn so far, in seconds: how long every other client of the worker once waited.
  package var longestTurnSeconds: Double = 0

  package init() {}
}

/// The figures of one listener.
package struct ListenerStatus: Sendable, Equatable {
  /// Where it really listens: the port is never 0.
  package var address = ""
  /// The codec's name.
  package var codec = ""
  /// Open connections that came through it.
  package var open = 0
  package var accepted: Int64 = 0
  package var refused: Int64 = 0

  package init() {}
}

/// The figures of one shared dictionary.
package struct SharedDictionaryStatus: Sendable, Equatable {
  package var name = ""
  /// Keys; those that have expired count until they are removed.
  package var items = 0
  /// What they cost, and what they may cost.
  package var bytes = 0
  package var capacityBytes = 0
  /// Keys removed before their time for want of memory.
  package var evictions: Int64 = 0
  /// How often a thread that changes it had to wait for another one.
  package var contentions = 0

  package init() {}
}

/// How the last reload or rollback ended.
package struct ReloadStatus: Sendable, Equatable {
  /// Whether the new generation went live.
  package var succeeded = false
  /// The reply that was given for it: what went live, or the error with its traceback.
  package var text = ""
  /// When it ended, in seconds since 1970 (UTC).
  package var unixSeconds: Int64 = 0
  /// How long ago that is, in seconds, by the monotonic clock.
  package var ageSeconds: Double = 0

  package init() {}
}

/// Everything that `status` shows.
package struct ServerStatus: Sendable, Equatable {
  package var version = ""
  /// The number of the live generation.
  package var generation = 0
  /// The live snapshot's content hash, as hexadecimal text.
  package var contentHash = ""
  package var scriptPath = ""
  package var uptimeSeconds: Double = 0
  package var processID: Int32 = 0
  package var workers: [WorkerStatus] = []
  package var listeners: [ListenerStatus] = []
  /// The background threads for offloaded functions.
  package var offload = OffloadStatus()
  /// How often a worker had to wait for another one at the counts of the rooms' members.
  package var roomContentions = 0
  /// The shared dictionaries, in the order in which they were made.
  package var dictionaries: [SharedDictionaryStatus] = []
  /// Open now.
  package var connections = 0
  package var messagesIn: Int64 = 0
  package var messagesOut: Int64 = 0
  package var bytesIn: Int64 = 0
  package var bytesOut: Int64 = 0
  /// Errors raised by handlers.
  package var errors: Int64 = 0
  /// Connections that were accepted and closed at once, by reason.
  package var refused: [String: Int64] = [:]
  /// Nil before the first reload.
  package var lastReload: ReloadStatus?
  /// Whether `--watch` reloads on changes.
  package var watches = false
  package var draining = false

  package init() {}

  /// What all Lua states together hold, in bytes.
  package var memoryBytes: Int64 { workers.reduce(0) { $0 &+ $1.memoryBytes } }
  /// Suspended handlers and tasks of all workers that still run older code.
  package var handlersOnOlderGenerations: Int { workers.reduce(0) { $0 &+ $1.handlersOnOlderGenerations } }
  package var published: Int64 { workers.reduce(0) { $0 &+ $1.published } }
  package var delivered: Int64 { workers.reduce(0) { $0 &+ $1.delivered } }
  package var subscriptions: Int { workers.reduce(0) { $0 &+ $1.subscriptions } }
  package var dropped: Int64 { workers.reduce(0) { $0 &+ $1.dropped } }
  /// Connections refused for any reason.
  package var refusedTotal: Int64 { refused.values.reduce(0, &+) }
}

/// One live connection, as `connections` shows it.
package struct ConnectionSummary: Sendable, Equatable {
  package var id: Int64 = 0
  /// The remote address.
  package var peer = ""
  /// The local address.
  package var address = ""
  /// The worker it lives on, 1-based.
  package var worker = 0
  /// Time since it opened, in seconds.
  package var ageSeconds: Double = 0
  /// Time since its last complete message, in seconds.
  package var idleSeconds: Double = 0
  package var messagesIn: Int64 = 0
  package var messagesOut: Int64 = 0
  package var bytesIn: Int64 = 0
  package var bytesOut: Int64 = 0
  /// Bytes that wait for the client to read.
  package var queuedBytes = 0
  package var rooms: [String] = []
  /// Made by a script, and no client.
  package var isOutgoing = false

  package init() {}
}
