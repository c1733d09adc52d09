// What an operator can ask of a running server, as a closed set, to and from the words on the wire. Must never know
// how a request is carried or carried out.

/// One request of the admin channel; the commands of the command line that talk to a running server.
package enum AdminRequest: Sendable, Equatable {
  /// Read the script anew and make it live; answered when all workers switched or none did.
  case reload
  /// Make the previous snapshot live again.
  case rollback
  /// How the server does, for a person or as JSON.
  case status(json: Bool)
  /// The table of live connections.
  case connections
  /// Close one connection by its id, which is 1 or more.
  case kick(id: Int64)
  /// Send a message to every client, or to the members of a room.
  case broadcast(text: String, room: String?)
  /// Stop accepting and let clients finish; `seconds` replaces the server's own limit.
  case drain(seconds: Double?)
  /// End now.
  case stop
  /// Are you there: answered with the process id and the script (`AdminPing`).
  case ping

  /// Longest drain that can be asked for, in seconds: a week, far over any rolling restart.
  package static let drainSecondsMax: Double = 7 * 24 * 3600

  /// The words of this request as they go over the wire, the command first.
  package var words: [String] {
    switch self {
    case .reload: ["reload"]
    case .rollback: ["rollback"]
    case .status(let json): json ? ["status", "json"] : ["status"]
    case .connections: ["connections"]
    case .kick(let id): ["kick", String(id)]
    case .broadcast(let text, let room): room.map { ["broadcast", text, $0] } ?? ["broadcast", text]
    case .drain(let seconds): seconds.map { ["drain", String($0)] } ?? ["drain"]
    case .stop: ["stop"]
    case .ping: ["ping"]
    }
  }

  /// The request that `words` spell. Throws a sentence that says which word is wrong and what is expected.
  package init(words: [String]) throws(AdminFailure) {
    guard let command = words.first else { throw AdminFailure("the request is empty") }
    let arguments = Array(words.dropFirst())
    switch command {
    case "reload", "rollback", "connections", "stop", "ping":
      guard arguments.isEmpty else { throw AdminFailure("\(command) takes no arguments, got \(arguments.count)") }
      self = Self.plain(command)
    case "status": self = try Self.status(arguments)
    case "kick": self = try Self.kick(arguments)
    case "broadcast": self = try Self.broadcast(arguments)
    case "drain": self = try Self.drain(arguments)
    default:
      // Scalars, since a single character may have any number of them.
      let name = FigureText.harmless(String(String.UnicodeScalarView(command.unicodeScalars.prefix(40))))
      throw AdminFailure("unknown command \"\(name)\"; is this program as new as the server?")
    }
  }

  private static func plain(_ command: String) -> AdminRequest {
    switch command {
    case "reload": .reload
    case "rollback": .rollback
    case "connections": .connections
    case "stop": .stop
    default: .ping
    }
  }

  private static func status(_ arguments: [String]) throws(AdminFailure) -> AdminRequest {
    if arguments.isEmpty { return .status(json: false) }
    guard arguments == ["json"] else { throw AdminFailure("status takes no argument but \"json\"") }
    return .status(json: true)
  }

  private static func kick(_ arguments: [String]) throws(AdminFailure) -> AdminRequest {
    guard arguments.count == 1, let id = Int64(arguments[0]), id > 0 else {
      throw AdminFailure("kick takes one connection id, a whole number from 1; `moonport connections` lists them")
    }
    return .kick(id: id)
  }

  private static func broadcast(_ arguments: [String]) throws(AdminFailure) -> AdminRequest {
    guard (1...2).contains(arguments.count) else { throw AdminFailure("broadcast takes a text and at most one room") }
    return .broadcast(text: arguments[0], room: arguments.count == 2 ? arguments[1] : nil)
  }

  private static func drain(_ arguments: [String]) throws(AdminFailure) -> AdminRequest {
    if arguments.isEmpty { return .drain(seconds: nil) }
    guard arguments.count == 1, let seconds = Double(arguments[0]), isDrainSeconds(seconds) else {
      throw AdminFailure("drain takes at most one number of seconds, from 0 to \(Int(drainSecondsMax))")
    }
    return .drain(seconds: seconds)
  }

  /// Whether `seconds` may be asked for: a number from 0 to `drainSecondsMax`.
  package static func isDrainSeconds(_ seconds: Double) -> Bool {
    seconds >= 0 && seconds <= drainSecondsMax
  }
}

/// The answer to `ping`: which server this is.
package struct AdminPing: Sendable, Equatable {
  /// The server's process id.
  package let processID: Int32
  /// The script it runs, as given on its command line.
  package let script: String

  package init(processID: Int32, script: String) {
    self.processID = processID
    self.script = script
  }

  /// The reply's text: the process id, a space, the script.
  package var text: String { "\(processID) \(script)" }

  /// The answer that `text` spells, nil for any other text.
  package init?(text: String) {
    let parts = text.split(separator: " ", maxSplits: 1, omittingEmptySubsequences: false)
    guard parts.count == 2, let processID = Int32(parts[0]), processID > 0 else { return nil }
    self.init(processID: processID, script: String(parts[1]))
  }
}
