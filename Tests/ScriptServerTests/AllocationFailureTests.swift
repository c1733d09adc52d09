// Every allocation that one call of the interface makes fails in turn: each time that is a Lua error, and nothing is left behind.

import CompletionIO
import LuaRuntime
import Testing

@testable import ScriptServer

@Suite("Refused allocations")
struct AllocationFailureTests {
  /// Calls a handler on the main thread and describes its results.
  private func ask(_ worker: Worker, _ handler: LuaReference) -> [String] {
    worker.lua.call(handler) { outcome in
      outcome.failure.map { ["error: \($0)"] }
        ?? (0..<outcome.count).map {
          outcome[$0].asBoolean.map { "\($0)" } ?? outcome[$0].text
        }
    }
  }

  /// Runs one case as a handler with allocations failing from the `count`th on; whether it came to its end.
  private func run(_ host: AllocationWorker, _ client: AllocationWorker.Client, _ name: LuaReference, _ count: Int?)
    -> Bool
  {
    let worker = host.worker
    let handlers = worker.listeners[0].handlers
    let owner = TaskOwner(kind: .event, connection: .none, codeGeneration: worker.generationNumber)
    host.failing(count) {
      worker.start(handlers.console, LuaArguments(.reference(name)), owner)
      worker.settle()
      client.send("in\n")
      for _ in 0..<12 where worker.tasks.count > 0 { host.turn() }
    }
    #expect(worker.tasks.count == 0 && worker.spawned.count == 0, "a task was left behind")
    // What the case did not read.
    host.turn()
    _ = client.received()
    let done = ask(worker, handlers.drain) == ["true"]
    #expect(!(ask(worker, handlers.stop).first ?? "").hasPrefix("error"))
    host.turn()
    return done
  }

  /// Fails each allocation of a case in turn until it succeeds; how many that were.
  private func sweep(_ host: AllocationWorker, _ name: String, _ client: inout AllocationWorker.Client) -> Int {
    let bytes = Array(name.utf8)
    let reference = bytes.withUnsafeBytes { host.worker.lua.makeString($0) }
    defer { host.worker.lua.release(reference) }
    var count = 0
    while count < 2000 {
      let done = run(host, client, reference, count)
      if host.worker.table.open.isEmpty {
        // The case closed it.
        client.close()
        _ = host.turnUntilEmpty()
        client = host.connect()
      }
      if done { return count }
      count += 1
    }
    Issue.record("\(name) never succeeded")
    return count
  }

  @Test("every function, method and field of the interface fails cleanly whichever of its allocations is refused")
  func everyFunction() throws {
    let host = try AllocationWorker(Self.script, modules: ["mod.lua": "return 1"])
    let handOut = "local _, native, methods = ... string.native, string.methods = native, methods"
    host.worker.lua.release(try host.worker.lua.runPrelude([Array(handOut.utf8)], name: "=test"))
    var client = host.connect()
    let answers = ask(host.worker, host.worker.listeners[0].handlers.start)
    #expect(answers.count == 3 && answers[1] == "", "no case for: \(answers)")
    var total = 0
    for name in answers[0].split(separator: " ").map(String.init) {
      // The first sweeps also grow tables to the size that they keep.
      for _ in 0..<2 { total += sweep(host, name, &client) }
      let before = host.settledBytes
      let count = sweep(host, name, &client)
      let after = host.settledBytes
      #expect(after <= before, "\(name) left \(after - before) bytes after \(count) failures")
    }
    #expect(total > 100)
    #expect(host.worker.timers.count == 0)
    client.close()
    #expect(host.turnUntilEmpty())
  }

  // MARK: Handlers

  private static let conversation = """
    local moonport = require "moonport"
    local function decode(bytes, position)
      local at = bytes:find("\\n", position, true)
      if at then return bytes:sub(position, at - 1), at + 1 end
    end
    local function encode(message) return "<" .. message .. ">" end
    moonport.listen { address = "127.0.0.1:1", codec = "line" }
    moonport.listen { address = "127.0.0.1:2", codec = { decode = decode, encode = encode } }
    local handlers = {}
    function handlers.on_open(conn)
      conn.ctx.lines = {}
      conn:join("all")
      conn:send("hello " .. conn.id)
    end
    function handlers.on_message(conn, text)
      table.insert(conn.ctx.lines, text)
      moonport.broadcast("said " .. text, { room = "all" })
      conn:send("more? " .. tostring(conn:receive()))
    end
    function handlers.on_close(conn, reason) moonport.broadcast("left " .. conn.peer .. reason) end
    function handlers.on_error(conn, message) conn:close("failed") end
    function handlers.on_save() return { 1, 2, 3 } end
    function handlers.on_restore(saved) handlers.saved = { saved } end
    return handlers
    """

  /// A client that comes, says three lines and leaves, with allocations failing from the `count`th on; what it got.
  private func converse(_ host: AllocationWorker, _ listener: UInt16, _ count: Int?) -> String {
    let client: AllocationWorker.Client = host.failing(count) {
      let client = host.connect(listener: listener)
      client.send("one\ntwo\n")
      host.turn()
      client.send("three\n")
      host.turn()
      return client
    }
    host.turn()
    let text = client.received()
    host.failing(count) {
      client.close()
      for _ in 0..<3 { host.turn() }
    }
    #expect(host.turnUntilEmpty())
    #expect(host.worker.tasks.count == 0)
    #expect(host.worker.counters.connections.load(ordering: .relaxed) == 0)
    return text
  }

  @Test(
    "a whole conversation fails cleanly whichever of its allocations is refused, in built-in codecs and in Lua's",
    arguments: [UInt16(0), 1])
  func conversations(_ listener: UInt16) throws {
    let host = try AllocationWorker(Self.conversation)
    let whole = converse(host, listener, nil)
    #expect(whole.contains("more? two"))
    func sweep() -> Int {
      var count = 0
      // Ids grow, so texts are compared without them.
      while count < 2000, converse(host, listener, count).filter({ !$0.isNumber }) != whole.filter({ !$0.isNumber }) {
        #expect(converse(host, listener, nil).contains("more? two"))
        count += 1
      }
      return count
    }
    #expect(sweep() > 10)
    _ = sweep()
    let before = host.settledBytes
    let count = sweep()
    let after = host.settledBytes
    // A longer id is a longer string.
    #expect(after <= before + 64, "left \(after - before) bytes after \(count) failures")
  }

  @Test("timers fail cleanly whichever allocation of their functions is refused")
  func timers() throws {
    let host = try AllocationWorker(
      """
      local moonport = require "moonport"
      moonport.listen { address = "127.0.0.1:1" }
      local beats = 0
      return {
        on_console = function() moonport.after(0, function(t) beats = #(("x"):rep(100) .. t.a) end, { a = "b" }) end,
        on_start = function() return beats end,
      }
      """)
    let worker = host.worker
    let owner = TaskOwner(kind: .event, connection: .none, codeGeneration: 1)
    func sweep() -> Int {
      for count in 0..<500 {
        let errors = worker.counters.errors.current
        worker.start(worker.listeners[0].handlers.console, LuaArguments(), owner)
        #expect(worker.timers.count == 1)
        host.failing(count) { for _ in 0..<3 { host.turn() } }
        #expect(worker.timers.count == 0)
        if worker.counters.errors.current == errors { return count }
      }
      return 500
    }
    _ = sweep()
    let before = host.settledBytes
    #expect((1..<500).contains(sweep()))
    #expect(host.settledBytes <= before)
  }

  // MARK: Loading

  @Test("a reload whose allocations are refused leaves the old generation and nothing of the new one")
  func reloads() throws {
    let host = try AllocationWorker(Self.conversation)
    func sweep(_ reload: (Int) throws -> String?) throws -> Int {
      for count in stride(from: 0, to: 20000, by: 7) {
        let number = host.worker.generationNumber
        guard let problem = try reload(count) else { return count }
        #expect(problem.contains("not enough memory"), "\(problem)")
        #expect(host.worker.generationNumber == number && host.worker.candidate == nil)
      }
      return 20000
    }
    for reload in [{ try host.reload(loading: $0) }, { try host.reload(handingOver: $0) }] as [(Int) throws -> String?]
    {
      _ = try sweep(reload)
      _ = try host.reload()
      let before = host.settledBytes
      let count = try sweep(reload)
      _ = try host.reload()
      let after = host.settledBytes
      #expect((1..<20000).contains(count))
      #expect(after <= before + 256, "left \(after - before) bytes after \(count) failures")
    }
    #expect(converse(host, 1, nil).contains("more? two"))
  }
}
