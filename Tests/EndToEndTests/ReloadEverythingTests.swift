// Live reload with everything alive that can be: sleepers, timers, tasks, subscriptions, outgoing connections and calls on
// background threads. Nothing of it may be lost, doubled, mixed up or left behind.
//
// CI-sized by default; MOONPORT_LONG=1 runs 1,000 reloads.

import Synchronization
import TestSupport
import Testing

@Suite(.serialized) struct ReloadEverythingSanitizerTests {
  private static let workers = 2
  private static let tasksPerWorker = 50

  /// A script whose clients' lines go through a subscription, an outgoing connection and a background thread.
  private static func everything(_ number: Int, _ folder: TemporaryFolder) -> String {
    """
    local moonport = require "moonport"
    moonport.listen { address = "127.0.0.1:0", codec = "line" }
    local upstream = { on_message = function(conn, text) conn:send("up ", text) end }
    moonport.listen { address = "unix:\(folder.file("up.sock"))", codec = "line", handler = upstream }
    local counts = moonport.shared("counts")
    local handlers = { version = "\(number)" }
    moonport.subscribe("news", function(news)
      moonport.sleep(0)
      counts:incr("news " .. news.number, 1, 0)
    end)
    moonport.every(0.005, function() counts:incr("beats \(number)", 1, 0) end)
    moonport.after(3600, function() counts:incr("too early", 1, 0) end)
    function handlers.on_start()
      for _ = 1, \(tasksPerWorker) do
        moonport.spawn(function()
          local _, reason = pcall(moonport.sleep, 3600)
          counts:incr(reason:find("reloaded", 1, true) and "ended" or "ended otherwise", 1, 0)
        end)
      end
    end
    function handlers.on_open(conn)
      conn.ctx.up = assert(moonport.connect("unix:\(folder.file("up.sock"))", { codec = "line" }))
    end
    function handlers.on_message(conn, text)
      if text == "check" then return conn:send(handlers.check()) end
      local number = math.tointeger(text)
      assert(moonport.publish("news", { number = number }))
      local up = conn.ctx.up
      up:send(text)
      local answer = assert(up:receive(nil, 20))
      conn:send(answer, " ", assert(moonport.offload("double", number)), " ", up.id, " ", moonport.generation)
    end
    function handlers.check()
      local numbers, wrong = 0, 0
      for _, key in ipairs(counts:keys(0)) do
        if key:find("^news ") then
          numbers = numbers + 1
          if counts:get(key) ~= \(workers) then wrong = wrong + 1 end
        end
      end
      return ("%d %d %d %d %d"):format(numbers, wrong, counts:get("ended") or 0, counts:get("ended otherwise") or 0,
        counts:get("too early") or 0)
    end
    return handlers

    """
  }

  @Test("through many reloads every line has one answer, each worker every message once, every task one end")
  func everythingGoesOn() throws {
    let folder = try TemporaryFolder()
    try folder.write("double.lua", "return function(number) return 2 * number end\n")
    let server = try MoonportProcess(script: Self.everything(1, folder), folder: folder) {
      $0.workers = Self.workers
      $0.listeners = 2
    }
    let clientCount = 8
    let rounds = Rounds(clients: clientCount)
    let clients = TestThread {
      try inParallel(clientCount, timeout: Patience.scaled(300)) { try rounds.run(server, client: $0) }
    }
    let reloads = isLongRun ? 200 : 20
    for number in 2...reloads + 1 {
      // Everybody comes past twice, so that no handler is suspended through two reloads, which would end it.
      try rounds.waitForAll(further: 2)
      try server.reload(Self.everything(number, folder))
    }
    try rounds.waitForAll(further: 2)
    rounds.isOver.store(true, ordering: .relaxed)
    try clients.join(timeout: Patience.scaled(60))

    let client = try server.connect()
    let ended = Self.workers * Self.tasksPerWorker * (reloads - 1)
    let expected = "\(rounds.total) 0 \(ended) 0 0"
    var seen = ""
    do {
      try eventually("all is as it should be") {
        seen = try client.ask("check")
        return seen == expected
      }
    } catch {
      throw TestFailure("numbers, wrong counts, tasks ended, otherwise, timers too early: \(seen), not \(expected)")
    }
    let status = try server.status()
    #expect(status["errors"].integer == 0, "\(server.errors)")
    #expect(status["generation"].integer == reloads + 1)
    client.close()
    try server.stop()
  }

  @Test("reloads leave nothing behind: memory and descriptors stay as they are")
  func nothingIsLeft() throws {
    let folder = try TemporaryFolder()
    try folder.write("double.lua", "return function(number) return 2 * number end\n")
    let server = try MoonportProcess(script: Self.everything(1, folder), folder: folder) {
      $0.workers = Self.workers
      $0.listeners = 2
      // A second one would be started only when the first is busy, so at any time or never.
      $0.arguments = ["--offload-threads", "1"]
    }
    let client = try server.connect()
    var number = 1
    func reloadMany(_ count: Int) throws {
      for _ in 0..<count {
        number += 1
        try server.reload(Self.everything(number, folder))
        let answer = try client.ask("\(number)")
        guard answer.hasPrefix("up \(number) \(2 * number) "), answer.hasSuffix(" \(number)") else {
          throw TestFailure("the answer to \(number) was \(answer)")
        }
      }
    }
    try reloadMany(isLongRun ? 100 : 30)
    let descriptors = try server.descriptorCount()
    let threads = try server.threadCount()
    let resident = try server.residentBytes()
    try reloadMany(isLongRun ? 1000 : 60)
    #expect(try server.descriptorCount() == descriptors)
    #expect(try server.threadCount() == threads)
    let grown = Double(try server.residentBytes()) / Double(resident)
    if isLongRun { print("resident memory after 1,000 reloads: \(grown) of that before") }
    // A sanitizer keeps freed memory back.
    if Patience.sanitizer == nil { #expect(grown < 1.05) }
  }
}

/// Clients that send numbers one after the other, and how far they are.
private final class Rounds: Sendable {
  let isOver = Atomic<Bool>(false)
  private let answered: [Count]

  private final class Count: Sendable {
    let value = Atomic<Int>(0)
  }

  init(clients: Int) { answered = (0..<clients).map { _ in Count() } }

  /// Answers in all.
  var total: Int { answered.reduce(0) { $0 + $1.value.load(ordering: .relaxed) } }

  /// Sends numbers that nobody else sends, and checks each answer.
  func run(_ server: MoonportProcess, client index: Int) throws {
    let client = try server.connect()
    var number = index * 1_000_000
    var upstream: Substring?
    while !isOver.load(ordering: .relaxed) {
      number += 1
      let answer = try client.ask("\(number)")
      let parts = answer.split(separator: " ")
      guard parts.count == 5, parts[0] == "up", parts[1] == "\(number)", parts[2] == "\(2 * number)" else {
        throw TestFailure("the answer to \(number) was \(answer)")
      }
      guard upstream == nil || upstream == parts[3] else {
        throw TestFailure("the outgoing connection \(upstream!) has become \(parts[3])")
      }
      upstream = parts[3]
      answered[index].value.add(1, ordering: .relaxed)
    }
  }

  /// Waits until every client has had so many answers more.
  func waitForAll(further count: Int) throws {
    let before = answered.map { $0.value.load(ordering: .relaxed) }
    try eventually("every client has had \(count) answers more") {
      zip(answered, before).allSatisfy { $0.value.load(ordering: .relaxed) >= $1 + count }
    }
  }
}
