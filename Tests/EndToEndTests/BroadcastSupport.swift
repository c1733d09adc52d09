// What the tests of broadcasts share: a server with clients that know their ids, a driver among them on whose word scripts run, and a
// model of what each of them gets where every broadcast is handed out at once.
//
// Must never know: which test uses it.

import TestSupport
import Testing

/// A server, its driver, and its members. Scripts run on the driver's worker, in one handler of its.
final class BroadcastStage {
  struct Member {
    let client: TestClient
    let id: String
    /// It is on the driver's worker, and `kept[ID]` there.
    let isHere: Bool
  }

  let server: MoonportProcess
  let driver: TestClient
  let driverId: String
  private(set) var members: [Member] = []
  private var runs = 0
  private static let mark = "\n#mark\n"

  /// `options` of the listener, `body` beside the handler that runs lines.
  init(workers: Int, members count: Int, _ options: String = "codec = \"line\"", _ body: String = "") throws {
    server = try MoonportProcess.serving(runsLines + "\n" + body, options, workers: workers)
    let (driver, id, worker) = try Self.enter(server)
    self.driver = driver
    driverId = id
    for _ in 0..<count {
      let (client, id, place) = try Self.enter(server)
      members.append(Member(client: client, id: id, isHere: place == worker))
    }
    #expect(workers == 1 || count == 0 || members.contains { !$0.isHere })
  }

  private static func enter(_ server: MoonportProcess) throws -> (TestClient, id: String, worker: String) {
    let client = try server.connect()
    let words = try client.ask("kept[conn.id] = conn return conn.id, moonport.worker.id").split(separator: " ")
    return (client, String(words[0]), String(words[1]))
  }

  /// Adds a member that came later.
  func admit() throws -> Member {
    let (client, id, place) = try Self.enter(server)
    let own = try driver.ask("return moonport.worker.id")
    members.append(Member(client: client, id: id, isHere: place == own))
    return members[members.count - 1]
  }

  /// Has the driver run `script`, behind which each member gets a mark; returns once the driver was answered.
  func run(_ script: String, marks: Bool = true) throws {
    runs += 1
    let written = marks ? members.map { " moonport.write(\($0.id), '\\n#mark\\n')" }.joined() : ""
    try driver.send("\(script)\(written) return 'ran', \(runs)\n")
    while true {
      let line = try driver.receiveLine()
      if line == "ran \(runs)" { return }
      if line.hasPrefix("line:1:") || line.hasPrefix("no Lua: ") { throw TestFailure("\(line) in \(script)") }
    }
  }

  /// Expects a member to have got these bytes, and then its mark.
  func expect(
    _ member: Int, _ text: String, _ comment: Comment? = nil, sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    try expect(member, Array(text.utf8), comment, sourceLocation: sourceLocation)
  }

  func expect(
    _ member: Int, _ bytes: [UInt8], _ comment: Comment? = nil, sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    let expected = bytes + Array(Self.mark.utf8)
    let got = try members[member].client.receive(exactly: expected.count)
    guard got != expected else { return }
    let place = zip(got, expected).prefix { $0 == $1 }.count
    let around = { (bytes: [UInt8]) in String(decoding: bytes[max(place - 20, 0)...].prefix(60), as: UTF8.self) }
    Issue.record(
      "member \(member) got other bytes from \(place) on: …\(around(got))… and not …\(around(expected))…\n\(comment ?? "")",
      sourceLocation: sourceLocation)
  }
}

/// What members get of random scripts.
struct BroadcastModel {
  private enum Framing: CaseIterable {
    case line, raw, netstring, length, fixed, delimiter, scripted

    var lua: String {
      switch self {
      case .line: "'line'"
      case .raw: "'raw'"
      case .netstring: "'netstring'"
      case .length: "{ type = 'length', size = 2 }"
      case .fixed: "{ type = 'fixed', length = 5 }"
      case .delimiter: "{ type = 'delimiter', delimiter = '<>' }"
      case .scripted: "{ decode = function() end, encode = function(m) return '[' .. m .. ']' end }"
      }
    }

    /// The message as it is sent; nil where it cannot be.
    func framed(_ message: [UInt8]) -> [UInt8]? {
      let count = message.count
      return switch self {
      case .line: message + [10]
      case .raw: message
      case .netstring: Array("\(count):".utf8) + message + Array(",".utf8)
      case .length: count > 65535 ? nil : [UInt8(count >> 8), UInt8(count & 255)] + message
      case .fixed: count == 5 ? message : nil
      case .delimiter: message + Array("<>".utf8)
      case .scripted: Array("[".utf8) + message + Array("]".utf8)
      }
    }
  }

  private struct Member {
    let id: String
    let isHere: Bool
    var framing = Framing.line
    var rooms: Set<String> = []
    var expected: [UInt8] = []
  }

  private var members: [Member]
  private var messages = 0
  private let rooms = ["r1", "r2"]

  init(_ members: [(id: String, isHere: Bool)]) { self.members = members.map { Member(id: $0.id, isHere: $0.isHere) } }

  /// What each member is to get since the last time.
  mutating func takeExpected() -> [[UInt8]] {
    defer { for index in members.indices { members[index].expected = [] } }
    return members.map(\.expected)
  }

  /// One statement of a script, as Lua.
  mutating func step(_ random: inout SeededGenerator) -> String {
    let any = Int.random(in: members.indices, using: &random)
    let here = members.indices.filter { members[$0].isHere }.randomElement(using: &random) ?? 0
    let room = rooms.randomElement(using: &random)!
    let object = "kept[\(members[here].id)]"
    switch Int.random(in: 0..<20, using: &random) {
    case 0..<9: return broadcast(&random)
    case 9, 10:
      let (lua, bytes) = message(&random)
      send(bytes, to: here)
      return "pcall(\(object).send, \(object), \(lua))"
    case 11:
      let (lua, bytes) = message(&random)
      members[here].expected += bytes
      return "\(object):write(\(lua))"
    case 12, 13:
      let (lua, bytes) = message(&random)
      send(bytes, to: any)
      return "moonport.send(\(members[any].id), \(lua))"
    case 14:
      let (lua, bytes) = message(&random)
      members[any].expected += bytes
      return "moonport.write(\(members[any].id), \(lua))"
    case 15, 16:
      members[here].rooms.insert(room)
      return "\(object):join('\(room)')"
    case 17:
      members[here].rooms.remove(room)
      return "\(object):leave('\(room)')"
    case 18:
      // A codec in Lua has everything handed out at once: less often, so that the others are gathered.
      let framing = Framing.allCases.dropLast(Int.random(in: 0..<4, using: &random) > 0 ? 1 : 0).randomElement(
        using: &random)!
      members[here].framing = framing
      return "\(object):set_codec(\(framing.lua))"
    default: return "moonport.sleep(0)"
    }
  }

  private mutating func broadcast(_ random: inout SeededGenerator) -> String {
    let (lua, bytes) = message(&random)
    let room = Int.random(in: 0..<3, using: &random) == 0 ? rooms.randomElement(using: &random)! : nil
    let except = Int.random(in: 0..<3, using: &random) == 0 ? members.indices.randomElement(using: &random)! : nil
    for index in members.indices where index != except && room.map({ members[index].rooms.contains($0) }) ?? true {
      send(bytes, to: index)
    }
    var options: [String] = []
    if let room { options.append("room = '\(room)'") }
    if let except {
      let asObject = members[except].isHere && Bool.random(using: &random)
      options.append("except = " + (asObject ? "kept[\(members[except].id)]" : members[except].id))
    }
    return "moonport.broadcast(\(lua)" + (options.isEmpty ? ")" : ", { \(options.joined(separator: ", ")) })")
  }

  private mutating func send(_ message: [UInt8], to index: Int) {
    if let bytes = members[index].framing.framed(message) { members[index].expected += bytes }
  }

  private mutating func message(_ random: inout SeededGenerator) -> (lua: String, bytes: [UInt8]) {
    messages += 1
    switch Int.random(in: 0..<20, using: &random) {
    case 0: return ("''", [])
    case 1:
      let count = Int.random(in: 3000...90000, using: &random)
      return ("('x'):rep(\(count))", [UInt8](repeating: UInt8(ascii: "x"), count: count))
    case 2..<6:
      let text = String(String(10000 + messages % 90000).prefix(5))
      return ("'\(text)'", Array(text.utf8))
    default: return ("'m\(messages)'", Array("m\(messages)".utf8))
    }
  }
}
