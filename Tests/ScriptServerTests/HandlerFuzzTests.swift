// Handlers that do anything at random, on a worker of the test's own, with clients that send in any pieces, do not read, and leave:
// each gets exactly what the script's calls said, in their order. MOONPORT_FUZZ_SECONDS sets how long (default 2), MOONPORT_SEED
// repeats a case.

import CompletionIO
import Glibc
import LuaRuntime
import TestSupport
import Testing

@testable import ScriptServer

@Suite("Handlers under random use")
struct HandlerFuzzTests {
  private static let stepsOfACase = 150
  private static let clientsMax = 8

  @Test("each client gets what was sent to it in the order of the calls, and nothing is left behind")
  func fuzz() throws {
    var run = FuzzRun("handler fuzz")
    var messages = 0
    var bytes = 0
    while var random = run.next() {
      let stage = try HandlerFuzzStage(seed: random.seed)
      for _ in 0..<Self.stepsOfACase { try stage.step(&random, clientsMax: Self.clientsMax) }
      try stage.finish(random)
      messages += stage.messages
      bytes += stage.bytes
    }
    #expect(messages > 0 && bytes > 0)
    print("handler fuzz: seed \(run.seed), \(run.cases) cases, \(messages) messages, \(bytes) bytes compared")
  }
}

/// One worker with its clients.
private final class HandlerFuzzStage {
  private final class Guest {
    let client: AllocationWorker.Client
    let id: String
    let listener: Int
    /// Framed messages that are not sent yet.
    var outgoing: [UInt8] = []
    var messages = 0
    var received: [UInt8] = []
    var hasEnded = false

    init(_ client: AllocationWorker.Client, id: String, listener: Int) {
      (self.client, self.id, self.listener) = (client, id, listener)
    }

    /// Reads at most `bytes` of what is there; whether there was anything.
    func read(_ bytes: Int) -> Bool {
      if hasEnded { return false }
      var buffer = [UInt8](repeating: 0, count: bytes)
      let count = Glibc.read(client.descriptor, &buffer, bytes)
      if count == 0 || count < 0 && errno != EAGAIN { hasEnded = true }
      received += buffer.prefix(max(count, 0))
      return count > 0
    }
  }

  private let host: AllocationWorker
  private var guests: [Guest] = []
  private(set) var messages = 0
  private(set) var bytes = 0

  init(seed: UInt64) throws {
    host = try AllocationWorker(HandlerFuzzScript.text(hasScriptedCodec: seed % 4 == 0))
    _ = ask("seed \(seed >> 1)")
  }

  /// Asks the script.
  private func ask(_ line: String) -> [UInt8] {
    let text = Array(line.utf8)
    return text.withUnsafeBytes { bytes in
      host.worker.lua.call(host.worker.listeners[0].handlers.console, LuaArguments(.bytes(bytes))) { outcome in
        outcome.failure.map { Array("error: \($0)".utf8) } ?? Array(outcome[0].text.utf8)
      }
    }
  }

  private func says(_ line: String) -> String { String(decoding: ask(line), as: UTF8.self) }

  // MARK: Steps

  /// Something at random, then a turn.
  func step(_ random: inout SeededGenerator, clientsMax: Int) throws {
    if guests.count < clientsMax, random.once(in: 4) {
      let listener = Int.random(in: 0..<HandlerFuzzScript.frames.count, using: &random)
      let client = host.connect(listener: UInt16(listener))
      guests.append(Guest(client, id: says("last"), listener: listener))
    }
    for guest in guests {
      if random.once(in: 3) { queueMessages(of: guest, &random) }
      if random.once(in: 2) { sendSome(of: guest, &random) }
      if random.once(in: 3) { _ = guest.read(Int.random(in: 1...(1 << 16), using: &random)) }
    }
    for _ in 0..<Int.random(in: 1...2, using: &random) { host.turn() }
    if let leaver = guests.indices.randomElement(using: &random), random.once(in: 25) {
      try check(guests[leaver], isWhole: false, random)
      guests.remove(at: leaver).client.close()
    }
    try requireInCase(random, says("problem").isEmpty, says("problem"))
  }

  private func queueMessages(of guest: Guest, _ random: inout SeededGenerator) {
    for _ in 0..<Int.random(in: 1...20, using: &random) {
      guest.messages += 1
      let text = "\(guest.messages)" + String(repeating: "m", count: Int.random(in: 0...60, using: &random))
      guest.outgoing += HandlerFuzzScript.frames[guest.listener](Array(text.utf8))
      messages += 1
    }
  }

  /// A piece that may end anywhere.
  private func sendSome(of guest: Guest, _ random: inout SeededGenerator) {
    let piece = guest.outgoing.prefix(random.once(in: 2) ? guest.outgoing.count : random.once(in: 2) ? 7 : 200)
    guard !piece.isEmpty else { return }
    let sent = piece.withUnsafeBytes {
      Glibc.send(guest.client.descriptor, $0.baseAddress, $0.count, CInt(MSG_NOSIGNAL))
    }
    if sent > 0 { guest.outgoing.removeFirst(sent) }
  }

  // MARK: The end

  /// Lets everything that waits end, and compares all that came; then nothing of the clients may be left.
  func finish(_ random: SeededGenerator) throws {
    _ = ask("rest")
    var quietTurns = 0
    while quietTurns < 20 {
      host.turn()
      var isQuiet = host.worker.timers.count == 0 && host.worker.spawned.count == 0
      for guest in guests where guest.read(1 << 16) { isQuiet = false }
      quietTurns = isQuiet ? quietTurns + 1 : 0
    }
    for guest in guests { try check(guest, isWhole: true, random) }
    for guest in guests { guest.client.close() }
    try requireInCase(random, host.turnUntilEmpty(), "connections are left")
    let deadline = CompletionPort.clock() + 20_000_000_000
    while host.worker.timers.count + host.worker.tasks.count > 0, CompletionPort.clock() < deadline { host.turn() }
    let (tasks, spawned) = (host.worker.tasks.count, host.worker.spawned.count)
    try requireInCase(random, tasks == 0 && spawned == 0, "\(tasks) tasks and \(spawned) spawned ones are left")
    try requireInCase(random, says("problem").isEmpty, says("problem"))
  }

  /// Whether a client has got what the script counts on: the beginning of it, or, where nothing more can come, all.
  private func check(_ guest: Guest, isWhole: Bool, _ random: SeededGenerator) throws {
    let expected = ask("expected \(guest.id)")
    let state = says("state \(guest.id)")
    bytes += guest.received.count
    let common = zip(expected, guest.received).prefix { $0 == $1 }.count
    try requireInCase(
      random, common == guest.received.count,
      "\(guest.id) (\(state)) got other bytes than were sent from \(common) of \(guest.received.count) on:"
        + " \(describe(guest.received, common)) instead of \(describe(expected, common))")
    guard isWhole, state != "aborted" else { return }
    try requireInCase(random, !state.hasPrefix("lost"), "\(guest.id) is \(state)")
    try requireInCase(
      random, common == expected.count, "\(guest.id) (\(state)) got \(common) of \(expected.count) bytes")
    let hasEnded = guest.hasEnded
    try requireInCase(random, hasEnded == (state == "closed"), "\(guest.id) is \(state), ended: \(hasEnded)")
  }

  private func describe(_ bytes: [UInt8], _ place: Int) -> String {
    String(decoding: bytes[max(0, place - 20)..<min(bytes.count, place + 40)], as: UTF8.self)
  }
}
