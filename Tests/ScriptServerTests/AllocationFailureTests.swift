// Every allocation that one call of the interface makes fails in turn: each time that is a Lua error, and nothing is left behind.

import CompletionIO
import LuaRuntime
import Testing

@testable import ScriptServer

@Suite("Refused allocations")
struct AllocationFailureTests {
  /// Has one case for every native, method and function; `on_console` runs one, `on_drain` says whether it came to its end,
  /// `on_stop` undoes it, and `on_start` lists what has no case.
  static let script = """
    local moonport = require "moonport"
    moonport.listen { address = "127.0.0.1:1" }
    local conn, methods, native
    local done, missing

    local function fails(f, ...)
      local ok, message = pcall(f, ...)
      if not ok and message:find("not enough memory") then error(message, 0) end
      assert(not ok)
    end
    local function decode(bytes, position) return bytes:sub(position), #bytes + 1 end
    local function encode(message) return "<" .. tostring(message) .. ">" end

    local cases = {
      conn = {
        send = function() assert(conn:send("a", 1, "b")) fails(conn.send, conn, {}) end,
        write = function() assert(conn:write("a", 2.5)) end,
        close = function() methods.close(conn, "why") end,
        abort = function() methods.abort(conn) end,
        pause = function() conn:pause() end,
        resume = function() conn:resume() end,
        buffered = function() return conn:buffered() end,
        closed = function() return conn:closed() end,
        receive = function() assert(conn:receive(3) == "in\\n") end,
        messages = function() for message in conn:messages() do assert(message == "in\\n") break end end,
        join = function() conn:join("some room") end,
        leave = function() conn:leave("some room") end,
        rooms = function() conn:join("a room of some length") conn:join("b") assert(#conn:rooms() >= 2) end,
        set_codec = function() conn:set_codec { decode = decode, encode = encode } conn:send { } conn:set_codec("raw") end,
      },
      native = {
        main = function() assert(native.main(moonport.generation)) end,
        module = function()
          assert(native.module(moonport.generation, "mod"))
          assert(not native.module(moonport.generation, "missing.module"))
        end,
        arguments = function() native.arguments() end,
        check_address = function()
          assert(native.check_address("127.0.0.1:1") == nil)
          assert(native.check_address("nowhere"))
        end,
        codec = function()
          assert(native.codec("line"))
          assert(native.codec("length", 10) == nil)
        end,
        use_codec = function() native.use_codec(conn, native.codec("raw")) end,
        handlers = function() assert(not native.handlers(decode, nil, encode, decode)) end,
        listener = function() assert(not native.listener("p", "a", 0, 0, 0, 0, 0, 0, 1, 1, 1, "close", 1, 0, 0, 0, 0, "pause")) end,
        is_connection = function() assert(native.is_connection(conn)) end,
        print = function() native.print("") end,
        log = function() native.log("debug", "message", "field", "svalue") end,
        broadcast = function() native.broadcast("a", "some room", conn.id) end,
        send = function() native.send(conn.id, "x") end,
        write = function() native.write(conn.id, "x") end,
        close = function() native.close(1234567890123, "x") end,
        count = function() return native.count() + native.count("some room") end,
        worker_id = function() return native.worker_id() end,
        worker_count = function() return native.worker_count() end,
        sleep = function() native.sleep(0) end,
        timer = function() native.cancel_timer(native.timer(100, true, function() return decode end)) end,
        cancel_timer = function() native.cancel_timer(1) end,
        publish = function() assert(native.publish("a channel", 1, "x", { { y = 1.5 } })) end,
        subscribe = function()
          local number = native.subscribe(moonport.generation, "a channel of some length", function() return decode end)
          assert(native.cancel_subscription(number))
        end,
        offload = function() assert(select(2, native.offload("module", { "x", y = 1 })) == "busy") end,
        offload_result = function() native.offload_result(1, { "x" }) end,
        cancel_subscription = function() assert(not native.cancel_subscription(1)) end,
        spawn = function() assert(native["task:wait"](native.spawn(function(ending) return decode end))) end,
        ["task:wait"] = function() assert(native["task:wait"](1)) end,
        cancel_task = function() assert(native.cancel_task(native.spawn(function(ending) return decode end))) end,
        task_ending = function() assert(not native.task_ending()) end,
        task_failed = function() native.task_failed("message") end,
      },
      moonport = {
        listen = function() fails(moonport.listen, { address = "127.0.0.1:1" }) end,
        broadcast = function()
          moonport.broadcast("x")
          moonport.broadcast("x", { room = "some room", except = conn })
          fails(moonport.broadcast, "x", { rom = 1 })
        end,
        send = function() moonport.send(conn.id, 17) end,
        write = function() moonport.write(conn.id, "x") end,
        close = function() moonport.close(1234567890123, "x") end,
        count = function() return moonport.count() + moonport.count("some room") end,
        sleep = function() moonport.sleep(0) end,
        after = function() moonport.after(100, function(a, b) return a, b end, 1, "b"):cancel() end,
        every = function() moonport.every(100, function(a, b) return a, b end, 1, "b"):cancel() end,
        offload = function() fails(moonport.offload, "module", decode) end,
        publish = function() fails(moonport.publish, "a channel", decode) end,
        subscribe = function() assert(moonport.subscribe("a channel of some length", decode):cancel()) end,
        spawn = function()
          assert(moonport.spawn(function(a, b) moonport.sleep(0) return b end, 1, "b"):wait() == "b")
          local waits = moonport.spawn(function() local x <close> = setmetatable({}, { __close = print }) moonport.sleep(100) end)
          assert(waits:wait(0) == nil and waits:cancel())
          assert(select(2, waits:wait()) == "cancelled")
          local _, problem, traceback = moonport.spawn(error, "x"):wait()
          assert(problem == "x" and #traceback > 10)
        end,
        log = function()
          for _, level in ipairs { "debug", "info", "warn", "error" } do moonport.log[level]("m", { a = 1, b = "c" }) end
        end,
        worker = function() return moonport.worker.id end,
        generation = function() return moonport.generation end,
      },
      environment = {
        require = function() fails(require, "missing.module") end,
        load = function() return load("return 1 + 1")() end,
        loadfile = function() assert(not loadfile("/nonexistent")) end,
        dofile = function() fails(dofile, "/nonexistent") end,
        print = function() print("") end,
        ctx = function() conn.ctx = {} conn.ctx.name = "x" return conn.peer, conn.address, conn.id, tostring(conn) end,
        wrap = function() for n in coroutine.wrap(function() moonport.sleep(0) coroutine.yield(1) end) do assert(n == 1) end end,
        resume = function()
          local co = coroutine.create(function() moonport.sleep(0) return 1 end)
          local ok, value = coroutine.resume(co)
          if not ok then error(value, 0) end
          local ok, message = coroutine.resume(co)
          assert(not ok and message == "cannot resume dead coroutine")
        end,
        receive_scripted = function()
          conn:set_codec { decode = decode, encode = encode }
          assert(conn:receive() == "in\\n")
        end,
      },
    }

    local function look()
      missing = {}
      local tables = { conn = methods, native = native, moonport = moonport }
      for group, functions in pairs(tables) do
        for name, value in pairs(functions) do
          -- The table of methods marks conn.id and the like by light userdata; they have cases of their own.
          if type(value) ~= "userdata" and not cases[group][name] then missing[#missing + 1] = group .. "." .. name end
        end
        for name in pairs(cases[group]) do
          if functions[name] == nil then missing[#missing + 1] = group .. "." .. name .. " (not there)" end
        end
      end
    end

    local handlers = {}
    function handlers.on_open(opened)
      conn = opened
      -- Left there by the test: scripts do not get at either.
      native, methods = string.native, string.methods
      look()
    end
    function handlers.on_close() end
    function handlers.on_error(conn, message) end
    function handlers.on_console(name)
      done = false
      local group, case = name:match("^(.-)%.(.*)$")
      cases[group][case]()
      done = true
    end
    function handlers.on_drain() return done end
    function handlers.on_stop()
      done = false
      for _, room in ipairs(conn:rooms() or {}) do conn:leave(room) end
      conn:set_codec("raw")
      conn:resume()
      conn.ctx = {}
    end
    function handlers.on_start()
      local all = {}
      for group, list in pairs(cases) do for name in pairs(list) do all[#all + 1] = group .. "." .. name end end
      table.sort(all)
      return table.concat(all, " "), missing and table.concat(missing, " ") or "no connection", native and 1 or 0
    end
    return handlers
    """

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
    let handOut = "local native, methods = ... string.native, string.methods = native, methods return {}"
    host.worker.lua.release(try host.worker.lua.runPrelude(Array(handOut.utf8), name: "=test"))
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
