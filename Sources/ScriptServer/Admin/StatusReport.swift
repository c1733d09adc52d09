// The status as a screen for a person and as JSON for a program, and the table of connections. Pure text from plain
// figures; must never know the server.

/// Renders `ServerStatus`.
package enum StatusReport {
  /// Longest script path or reload text shown on one line of the screen, in characters: 80 columns less the 15 of
  /// the labels.
  private static let valueCharactersMax = 65

  /// A screen of at most 80 columns, for usual figures and addresses.
  package static func text(_ status: ServerStatus) -> String {
    var text = heading(status)
    text += "\nTraffic\n" + traffic(status)
    text += "\nListeners\n" + listeners(status)
    if !status.dictionaries.isEmpty { text += "\nShared dictionaries\n" + dictionaries(status) }
    text += "\nWorkers\n" + workers(status) + troubles(status)
    return text
  }

  private static func heading(_ status: ServerStatus) -> String {
    var text = "moonport \(status.version), pid \(status.processID), up \(FigureText.span(status.uptimeSeconds))"
    text += status.draining ? ", draining\n" : "\n"
    text += line("script", shortened(status.scriptPath))
    let hash = status.contentHash.isEmpty ? "" : " (\(status.contentHash.prefix(12)))"
    let watching = status.watches ? ", reloads when a file changes" : ""
    text += line("generation", "\(status.generation)\(hash)\(watching)")
    if let reload = status.lastReload {
      let outcome = reload.succeeded ? "succeeded" : "failed"
      text += line("last reload", "\(outcome) \(FigureText.span(reload.ageSeconds)) ago")
      for part in reload.text.split(separator: "\n") {
        // Lua's tracebacks are indented by tabs.
        let indented = part.split(separator: "\t", omittingEmptySubsequences: false).joined(separator: "  ")
        text += line("", shortened(indented))
      }
    }
    let older = status.handlersOnOlderGenerations
    if older > 0 {
      text += line(
        "older code", older == 1 ? "1 handler still runs it" : "\(FigureText.count(Int64(older))) handlers still run it"
      )
    }
    return text
  }

  private static func traffic(_ status: ServerStatus) -> String {
    var text = line("connections", "\(FigureText.count(Int64(status.connections))) open")
    text += line("messages", "\(FigureText.count(status.messagesIn)) in, \(FigureText.count(status.messagesOut)) out")
    text += line("bytes", "\(FigureText.size(status.bytesIn)) in, \(FigureText.size(status.bytesOut)) out")
    text += line(
      "channels",
      "\(FigureText.count(status.published)) published, \(FigureText.count(status.delivered)) delivered, "
        + "\(FigureText.count(Int64(status.subscriptions))) subscribed")
    text += line(
      "offloaded",
      "\(FigureText.count(status.offload.finished)) finished, \(status.offload.running) running, "
        + "\(status.offload.waiting) waiting, \(FigureText.count(status.offload.refused)) refused")
    text += line("dropped", FigureText.count(status.dropped))
    text += line("Lua memory", FigureText.size(status.memoryBytes))
    text += line("errors", FigureText.count(status.errors))
    let reasons = status.refused.filter { $0.value > 0 }.sorted { $0.key < $1.key }
    let list = reasons.map { "\($0.key) \(FigureText.count($0.value))" }.joined(separator: ", ")
    text += line("refused", FigureText.count(status.refusedTotal) + (list.isEmpty ? "" : " (\(list))"))
    return text
  }

  private static func listeners(_ status: ServerStatus) -> String {
    if status.listeners.isEmpty { return "  none\n" }
    var table = TextTable([
      ("address", .left), ("codec", .left), ("open", .right), ("accepted", .right), ("refused", .right),
    ])
    for listener in status.listeners {
      table.append([
        FigureText.harmless(listener.address), listener.codec, FigureText.shortCount(Int64(listener.open)),
        FigureText.shortCount(listener.accepted), FigureText.shortCount(listener.refused),
      ])
    }
    return table.text
  }

  private static func dictionaries(_ status: ServerStatus) -> String {
    var table = TextTable([
      ("name", .left), ("items", .right), ("memory", .right), ("at most", .right), ("evicted", .right),
    ])
    for dictionary in status.dictionaries {
      table.append([
        shortened(FigureText.harmless(dictionary.name)), FigureText.shortCount(Int64(dictionary.items)),
        FigureText.size(Int64(dictionary.bytes)), FigureText.size(Int64(dictionary.capacityBytes)),
        FigureText.shortCount(dictionary.evictions),
      ])
    }
    return table.text
  }

  private static func workers(_ status: ServerStatus) -> String {
    var table = TextTable([
      ("id", .right), ("open", .right), ("msgs in", .right), ("msgs out", .right), ("memory", .right),
      ("older", .right), ("busy", .right), ("longest turn", .right),
    ])
    for worker in status.workers {
      table.append([
        String(worker.id), FigureText.shortCount(Int64(worker.connections)), FigureText.shortCount(worker.messagesIn),
        FigureText.shortCount(worker.messagesOut), FigureText.size(worker.memoryBytes),
        FigureText.shortCount(Int64(worker.handlersOnOlderGenerations)),
        FigureText.percent(status.uptimeSeconds > 0 ? worker.busySeconds / status.uptimeSeconds : 0),
        FigureText.shortSpan(worker.longestTurnSeconds),
      ])
    }
    return table.text
  }

  /// A line for each worker whose scripts went, or go, beyond their bounds.
  private static func troubles(_ status: ServerStatus) -> String {
    var text = ""
    for worker in status.workers {
      var parts: [String] = []
      if let place = worker.stuckAt {
        let span = FigureText.span(worker.stuckSeconds)
        parts.append(place.isEmpty ? "stuck for \(span)" : "stuck for \(span) in \(place)")
      }
      if worker.budgetErrors > 0 { parts.append("runs over budget: \(FigureText.count(worker.budgetErrors))") }
      if worker.memoryErrors > 0 { parts.append("out of memory: \(FigureText.count(worker.memoryErrors))") }
      if !parts.isEmpty { text += line("worker \(worker.id)", parts.joined(separator: ", ")) }
    }
    return text
  }

  /// A label in a column of its own, two blanks, the value.
  private static func line(_ label: String, _ value: String) -> String {
    let padding = String(repeating: " ", count: max(0, 11 - label.count))
    return "  \(label)\(padding)  \(FigureText.harmless(value))\n"
  }

  private static func shortened(_ value: String) -> String {
    value.count <= valueCharactersMax ? value : value.prefix(valueCharactersMax - 3) + "..."
  }

  /// The status as one JSON object and a line end. The keys of the contract come first; the others are extra.
  package static func json(_ status: ServerStatus) -> String {
    var json = JSONText()
    json.beginObject()
    json.member("version", status.version)
    json.member("generation", status.generation)
    json.member("uptime", milliseconds(status.uptimeSeconds))
    json.member("connections", status.connections)
    json.member("messages_in", status.messagesIn)
    json.member("messages_out", status.messagesOut)
    json.member("bytes_in", status.bytesIn)
    json.member("bytes_out", status.bytesOut)
    json.key("workers")
    json.beginArray()
    for worker in status.workers { append(worker, to: &json) }
    json.endArray()
    json.key("listeners")
    json.beginArray()
    for listener in status.listeners { append(listener, to: &json) }
    json.endArray()
    json.member("errors", status.errors)
    json.key("refused")
    json.beginObject()
    for (reason, count) in status.refused.sorted(by: { $0.key < $1.key }) { json.member(reason, count) }
    json.endObject()
    appendExtras(of: status, to: &json)
    json.endObject()
    return json.string + "\n"
  }

  private static func appendExtras(of status: ServerStatus, to json: inout JSONText) {
    json.key("dictionaries")
    json.beginArray()
    for dictionary in status.dictionaries { append(dictionary, to: &json) }
    json.endArray()
    json.member("memory", status.memoryBytes)
    json.member("published", status.published)
    json.member("delivered", status.delivered)
    json.member("subscriptions", status.subscriptions)
    json.member("dropped", status.dropped)
    json.member("room_contentions", status.roomContentions)
    json.key("offload")
    append(status.offload, to: &json)
    json.member("pid", status.processID)
    json.member("script", status.scriptPath)
    json.member("hash", status.contentHash)
    json.member("handlers_on_older_generations", status.handlersOnOlderGenerations)
    json.member("watch", status.watches)
    json.member("draining", status.draining)
    json.key("last_reload")
    guard let reload = status.lastReload else { return json.null() }
    json.beginObject()
    json.member("ok", reload.succeeded)
    json.member("text", reload.text)
    json.member("time", reload.unixSeconds)
    json.member("age", milliseconds(reload.ageSeconds))
    json.endObject()
  }

  private static func append(_ worker: WorkerStatus, to json: inout JSONText) {
    json.beginObject()
    json.member("id", worker.id)
    json.member("connections", worker.connections)
    json.member("messages_in", worker.messagesIn)
    json.member("messages_out", worker.messagesOut)
    json.member("memory", worker.memoryBytes)
    json.member("handlers_on_older_generations", worker.handlersOnOlderGenerations)
    json.member("published", worker.published)
    json.member("delivered", worker.delivered)
    json.member("subscriptions", worker.subscriptions)
    json.member("dropped", worker.dropped)
    json.member("budget_errors", worker.budgetErrors)
    json.member("memory_errors", worker.memoryErrors)
    json.member("stuck_at", worker.stuckAt ?? "")
    json.member("stuck_seconds", milliseconds(worker.stuckSeconds))
    json.member("mailbox_contentions", worker.mailboxContentions)
    json.member("turns", worker.turns)
    json.member("busy", milliseconds(worker.busySeconds))
    json.member("longest_turn", worker.longestTurnSeconds)
    json.endObject()
  }

  private static func append(_ dictionary: SharedDictionaryStatus, to json: inout JSONText) {
    json.beginObject()
    json.member("name", dictionary.name)
    json.member("items", dictionary.items)
    json.member("bytes", dictionary.bytes)
    json.member("max_memory", dictionary.capacityBytes)
    json.member("evictions", dictionary.evictions)
    json.member("contentions", dictionary.contentions)
    json.endObject()
  }

  private static func append(_ offload: OffloadStatus, to json: inout JSONText) {
    json.beginObject()
    json.member("threads", offload.threads)
    json.member("threads_max", offload.threadsMax)
    json.member("running", offload.running)
    json.member("waiting", offload.waiting)
    json.member("finished", offload.finished)
    json.member("refused", offload.refused)
    json.endObject()
  }

  private static func append(_ listener: ListenerStatus, to json: inout JSONText) {
    json.beginObject()
    json.member("address", listener.address)
    json.member("codec", listener.codec)
    json.member("open", listener.open)
    json.member("accepted", listener.accepted)
    json.member("refused", listener.refused)
    json.endObject()
  }

  /// `seconds` without the digits below a millisecond, which mean nothing.
  private static func milliseconds(_ seconds: Double) -> Double {
    (seconds * 1000).rounded() / 1000
  }
}

/// Renders the table of `connections`.
package enum ConnectionsReport {
  /// Most rooms named per connection; more are counted.
  private static let roomsShownMax = 4

  /// One row per connection in the order of ids, and a last line with their number.
  package static func text(_ connections: [ConnectionSummary]) -> String {
    if connections.isEmpty { return "no connections\n" }
    var table = TextTable([
      ("id", .right), ("peer", .left), ("local", .left), ("worker", .right), ("age", .right), ("idle", .right),
      ("msgs in", .right), ("msgs out", .right), ("bytes in", .right), ("bytes out", .right), ("queued", .right),
      ("rooms", .left),
    ])
    for connection in connections.sorted(by: { $0.id < $1.id }) {
      table.append([
        String(connection.id), (connection.isOutgoing ? "-> " : "") + FigureText.harmless(connection.peer),
        FigureText.harmless(connection.address),
        String(connection.worker), FigureText.span(connection.ageSeconds), FigureText.span(connection.idleSeconds),
        FigureText.shortCount(connection.messagesIn), FigureText.shortCount(connection.messagesOut),
        FigureText.size(connection.bytesIn), FigureText.size(connection.bytesOut),
        FigureText.size(Int64(connection.queuedBytes)), rooms(connection.rooms),
      ])
    }
    let noun = connections.count == 1 ? "connection" : "connections"
    return table.text + "\(FigureText.count(Int64(connections.count))) \(noun)\n"
  }

  private static func rooms(_ rooms: [String]) -> String {
    var names = rooms.sorted().prefix(roomsShownMax).map { FigureText.harmless($0) }
    if rooms.count > roomsShownMax { names.append("and \(rooms.count - roomsShownMax) more") }
    return names.joined(separator: ", ")
  }
}
