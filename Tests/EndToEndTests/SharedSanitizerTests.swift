// Shared dictionaries of a whole server whose workers use them at once: sums that must be exact, histories that must be explainable.
// Small by default; MOONPORT_LONG=1 has the full sizes.
//
// Must never know: how a dictionary is made.

import Synchronization
import TestSupport
import Testing

@Suite(.serialized) struct SharedSanitizerTests {
  @Test func `a million increments of each worker, and as many of its timers, give exactly the sum`() throws {
    let count = isLongRun ? 1_000_000 : 50_000
    let server = try MoonportProcess.serving(
      """
      local d = moonport.shared("sums")
      local count = \(count)
      function h.on_message(conn, text)
        if text == "id" then return conn:send(moonport.worker.id) end
        if text == "sum" then return conn:send(d:get("sum")) end
        if text == "timers" then
          local left = count // 1000
          for _ = 1, count // 1000 do
            moonport.after(0.001, function()
              for _ = 1, 1000 do d:incr("sum", 1, 0) end
              left = left - 1
              if left == 0 then conn:send("done") end
            end)
          end
          return
        end
        for step = 1, count do
          d:incr("sum", 1, 0)
          if step % 1000 == 0 then moonport.sleep(0) end
        end
        conn:send("done")
      end
      """, workers: 2)
    let (one, two) = try server.clientsOfBothWorkers(asking: "id")
    let (three, four) = try server.clientsOfBothWorkers(asking: "id")
    for client in [one, two] { try client.send("go\n") }
    for client in [three, four] { try client.send("timers\n") }
    for client in [one, two, three, four] {
      client.timeout = Patience.scaled(120)
      #expect(try client.receiveLine() == "done")
    }
    #expect(try one.ask("sum") == "\(4 * count)")
    #expect(try server.control("reload").status == .exited(0))
    #expect(try two.ask("sum") == "\(4 * count)")
    try server.stop()
  }

  @Test(.seeded) func `what clients of both workers see of random calls can be explained`() throws {
    let server = try MoonportProcess.serving(
      """
      local d = moonport.shared("histories")
      local function value(text) return text ~= "-" and (math.tointeger(tonumber(text)) or text) or nil end
      local calls = {
        get = function(key) return d:get(key) end,
        set = function(key, new) d:set(key, value(new)) return "done" end,
        add = function(key, new) return d:add(key, value(new)) and "done" end,
        cas = function(key, old, new) return d:cas(key, value(old), value(new)) and "done" end,
        incr = function(key, initial) return (d:incr(key, 1, value(initial))) end,
        delete = function(key) return (select(3, d:delete(key))) and "done" end,
      }
      function h.on_message(conn, text)
        if text == "id" then return conn:send(moonport.worker.id) end
        local name, key, one, two = text:match("^(%S+) (%S+) ?(%S*) ?(%S*)$")
        conn:send(calls[name](key, one, two) or "-")
      end
      """, workers: 2)
    let pairs = try (0..<2).map { _ in try server.clientsOfBothWorkers(asking: "id") }
    let clients = pairs.flatMap { [$0.0, $0.1] }
    var random = SeededGenerator()
    let seeds = clients.map { _ in random.next() }
    let keys = 4
    let time = SharedCount()
    let callers = clients.map { History(client: $0, keys: keys) }
    try inParallel(clients.count, timeout: Patience.scaled(120)) { number in
      var random = SeededGenerator(seed: seeds[number])
      for _ in 0..<(isLongRun ? 5000 : 500) {
        let key = Int.random(in: 0..<keys, using: &random)
        let began = time.next()
        let step = try Self.call(callers[number].client, "k\(key)", &random)
        callers[number].operations[key].append(RegisterOperation(step, began: began, ended: time.next()))
      }
    }
    for key in 0..<keys { #expect(isLinearizable(callers.map { $0.operations[key] })) }
    try server.stop()
  }

  /// Asks for one random call and tells what came of it.
  private static func call(
    _ client: TestClient, _ key: String, _ random: inout SeededGenerator
  ) throws -> RegisterStep {
    func value() -> RegisterValue {
      let number = Int.random(in: 0..<4, using: &random)
      return Bool.random(using: &random) ? .integer(number) : .text("text\(number)")
    }
    func text(_ value: RegisterValue?) -> String {
      switch value {
      case .integer(let number): "\(number)"
      case .text(let text): text
      case nil: "-"
      }
    }
    switch Int.random(in: 0..<6, using: &random) {
    case 0:
      let new = value()
      _ = try client.ask("set \(key) \(text(new))")
      return .set(new)
    case 1:
      let new = value()
      return .add(new, done: try client.ask("add \(key) \(text(new))") == "done")
    case 2:
      let (old, new) = (value(), Bool.random(using: &random) ? value() : nil)
      return .compareAndSet(old, new, done: try client.ask("cas \(key) \(text(old)) \(text(new))") == "done")
    case 3:
      let initial = Bool.random(using: &random) ? 5 : nil
      let answer = try client.ask("incr \(key) \(initial.map(String.init) ?? "-")")
      return .increment(1, initial: initial, sum: Int(answer))
    case 4: return .delete(existed: try client.ask("delete \(key)") == "done")
    default:
      let answer = try client.ask("get \(key)")
      return .get(answer == "-" ? nil : Int(answer).map { .integer($0) } ?? .text(answer))
    }
  }

  @Test func `a small dictionary in which everything comes and goes serves both workers`() throws {
    let server = try MoonportProcess.serving(
      """
      local d = moonport.shared("churn", { max_memory = 65536 })
      local random = math.random
      function h.on_message(conn, text)
        if text == "id" then return conn:send(moonport.worker.id) end
        for _ = 1, tonumber(text) do
          local key, choice = "k" .. random(500), random(12)
          if choice == 1 then d:delete(key)
          elseif choice == 2 then d:set(key, { key, n = { random(9) } })
          elseif choice == 3 then d:set(key, key:rep(random(30)), random() / 100)
          elseif choice == 4 then d:incr(key, 1, 0)
          elseif choice == 5 then d:lpush("l" .. key, key)
          elseif choice == 6 then d:rpop("l" .. key)
          elseif choice == 7 then d:keys(10)
          elseif choice == 8 then d:expire(key, 0.001)
          else
            local value = d:get(key)
            if type(value) == "string" then assert(value:sub(1, #key) == key and #value % #key == 0) end
            if type(value) == "table" then assert(value[1] == key and value.n[1] < 10) end
          end
          if random(2000) == 1 then d:flush() end
        end
        assert(d:free_space() >= 0)
        conn:send("fine")
      end
      """, workers: 2)
    let (one, two) = try server.clientsOfBothWorkers(asking: "id")
    for _ in 0..<(isLongRun ? 50 : 5) {
      for client in [one, two] { try client.send("4000\n") }
      #expect(try server.control("status", "--json").status == .exited(0))
      for client in [one, two] { #expect(try client.receiveLine() == "fine") }
    }
    #expect(try server.control("reload").status == .exited(0))
    try server.stop()
  }
}

/// What one client saw, by key. One thread's at a time.
private final class History: @unchecked Sendable {
  let client: TestClient
  var operations: [[RegisterOperation]]

  init(client: TestClient, keys: Int) {
    self.client = client
    operations = Array(repeating: [], count: keys)
  }
}

/// A count that all threads have in common, as their time.
private final class SharedCount: Sendable {
  private let value = Atomic<Int>(0)
  func next() -> Int { value.wrappingAdd(1, ordering: .sequentiallyConsistent).newValue }
}
