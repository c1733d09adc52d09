// What a script may do to the server that it runs in, by accident: every function with every kind of argument, everywhere, and
// handlers that pull the ground from under themselves. The server goes on in each case.
//
// Must never know: how a function checks its arguments.

import TestSupport
import Testing

@Suite(.serialized) struct TortureScriptTests {
  /// Functions that call everything with everything. `abuse(conn, call)` hands each call to `call`.
  private static let abuse = """
    local function nothing() end
    local function values(conn)
      return {
        false, true, 0, -1, 1, 2 ^ 53, 1.5, math.mininteger, math.maxinteger, 1 / 0, -1 / 0, 0 / 0, "", "x", "line", "\\0", ("x"):rep(100000),
        {}, { 1, 2, x = {} }, nothing, coroutine.create(nothing), io.stdout, conn,
      }
    end
    local methods = {
      "send", "write", "close", "abort", "receive", "messages", "join", "leave", "rooms", "pause", "resume", "set_codec", "buffered",
      "closed",
    }
    local calls = {
      "get", "set", "safe_set", "add", "replace", "delete", "incr", "cas", "expire", "ttl", "lpush", "rpush", "lpop", "rpop", "llen",
      "lrange", "keys", "count", "flush", "flush_expired", "capacity", "free_space",
    }
    local function functions(conn)
      local list = {}
      local function add(t)
        for name, value in pairs(t) do
          if type(value) == "function" then list[#list + 1] = value elseif type(value) == "table" then add(value) end
        end
      end
      add(moonport)
      for _, name in ipairs(methods) do
        local method = conn[name]
        list[#list + 1] = method
        list[#list + 1] = function(...) return method(conn, ...) end
      end
      local dict = moonport.shared("abused", { max_memory = 65536 })
      for _, name in ipairs(calls) do
        local call = dict[name]
        list[#list + 1] = call
        list[#list + 1] = function(...) return call(dict, ...) end
      end
      local task, timer = moonport.spawn(nothing), moonport.after(0, nothing)
      for _, object in ipairs { task, timer } do
        for _, method in pairs(getmetatable(object)) do if type(method) == "function" then list[#list + 1] = method end end
      end
      return list
    end
    local function abuse(conn, call)
      local all, count = values(conn), 0
      for _, f in ipairs(functions(conn)) do
        call(f)
        for i, value in ipairs(all) do
          call(f, value)
          call(f, nil, value)
          call(f, all[(i * 7) % #all + 1], value, all[(i * 5) % #all + 1])
        end
        call(f, table.unpack(all))
        call(f, table.unpack(all, 1, 300))
        count = count + 1
      end
      return count
    end
    """

  private func serving(_ handlers: String, workers: Int = 1) throws -> MoonportProcess {
    try MoonportProcess.serving(TortureScriptTests.abuse + handlers, workers: workers) {
      $0.arguments = ["--handler-budget", "20", "--load-budget", "20", "--log-level", "critical"]
    }
  }

  @Test func `every function with no, wrong, huge and too many arguments leaves the server as it was`() throws {
    let server = try serving(
      """

      local victims = {}
      function h.on_message(conn, text)
        if text == "victim" then victims[#victims + 1] = conn return end
        if text ~= "go" then return conn:send(text) end
        local tasks, made = {}, 0
        local function call(f, ...)
          tasks[#tasks + 1] = moonport.spawn(pcall, f, ...)
          made = made + 1
          if made % 100 > 0 then return end
          moonport.sleep(0.001)
          for _, task in ipairs(tasks) do task:cancel() end
          tasks = {}
        end
        for _, victim in ipairs(victims) do abuse(victim, call) end
        print("made " .. made)
      end
      """)
    let gone = try server.connect()
    let victim = try server.connect()
    let client = try server.connect()
    for one in [gone, victim] { try one.send("victim\n") }
    gone.close()
    try client.send("go\n")
    try server.waitForOutput(containing: "made ")
    let after = try server.connect()
    try after.send("still here\n")
    while try after.receiveLine() != "still here" {}
    #expect(try server.control("status").status == .exited(0))
  }

  @Test func `every function can be tried while connections close, the code changes and the server ends`() throws {
    let server = try serving(
      """

      local last
      local function direct(f, ...) pcall(f, ...) end
      local function try_all(name) if last then abuse(last, direct) print(name) end end
      function h.on_message(conn, text) last = conn conn:send(text) end
      function h.on_close(conn) last = conn abuse(conn, function(f, ...) moonport.spawn(pcall, f, ...):cancel() end) print("on_close") end
      function h.on_save() try_all("on_save") return 1 end
      function h.on_restore() print("on_restore") end
      function h.on_stop() try_all("on_stop") end
      """)
    let client = try server.connect()
    #expect(try client.ask("x") == "x")
    client.close()
    try server.waitForOutput(containing: "on_close")
    #expect(try server.control("reload").status == .exited(0))
    try server.waitForOutput(containing: "on_save")
    let next = try server.connect()
    try next.send("y\n")
    while try next.receiveLine() != "y" {}
    _ = try server.control("stop")
    #expect(try server.waitForExit() == .exited(0))
    #expect(contains(server.output, "on_stop"))
  }

  @Test func `every function can be tried while a generation takes over and when it starts`() throws {
    let server = try serving(
      """

      local last
      function h.on_message(conn, text) last = conn conn:send(text) end
      function h.on_save() return last end
      function h.on_restore(saved)
        last = saved
        abuse(last, function(f, ...) pcall(f, ...) end)
        print("on_restore")
      end
      function h.on_start()
        if not last then return end
        abuse(last, function(f, ...) moonport.spawn(pcall, f, ...):cancel() end)
        print("on_start")
      end
      """)
    let client = try server.connect()
    #expect(try client.ask("x") == "x")
    #expect(try server.control("reload").status == .exited(0))
    try server.waitForOutput(containing: "on_start")
    #expect(contains(server.output, "on_restore"))
    let next = try server.connect()
    try next.send("y\n")
    while try next.receiveLine() != "y" {}
    try server.stop()
  }

  @Test func `a handler may close itself while it broadcasts, and others on any worker, and have the server reload`()
    throws
  {
    let server = try MoonportProcess.serving(
      """
      local acts = {}
      function acts.self(conn) for i = 1, 100 do moonport.broadcast("b" .. i) if i == 50 then conn:close() end end end
      function acts.abort(conn) moonport.broadcast("a") conn:abort() moonport.broadcast("c") conn:send("x") end
      function acts.peers(conn) for id = conn.id - 5, conn.id + 5 do moonport.close(id, "peer") end for _, id in ipairs(moonport.shared("ids"):keys()) do moonport.close(math.tointeger(tonumber(id)), "peer") end end
      function acts.reload() for _ = 1, 20 do os.execute("kill -HUP $PPID") end end
      function acts.nested(conn) conn:join("room") for _ = 1, 100 do moonport.broadcast("n", { room = "room" }) end conn:close() moonport.close(conn.id) conn:abort() end
      function h.on_open(conn) moonport.shared("ids"):set(conn.id, true) end
      function h.on_close(conn, reason) moonport.shared("ids"):delete(conn.id) moonport.broadcast("gone") conn:close() conn:abort() moonport.close(conn.id) end
      function h.on_message(conn, text) if acts[text] then acts[text](conn) end conn:send("=" .. text) end
      """, workers: 2)
    for _ in 0..<5 {
      for act in ["self", "abort", "peers", "nested", "reload"] {
        let witnesses = try (0..<4).map { _ in try server.connect() }
        let client = try server.connect()
        try client.send(act + "\n")
        if act == "reload" {
          while try client.receiveLine() != "=reload" {}
        } else {
          _ = try client.waitForEnd()
        }
        for witness in witnesses { witness.close() }
      }
    }
    let last = try server.connect()
    try last.send("end\n")
    while try last.receiveLine() != "=end" {}
    try eventually("the reloads end") { try server.control("reload").status == .exited(0) }
    try server.stop()
  }

  @Test func `200,000 coroutines whose closing closes the next end with an error in their handler`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_message(conn, text)
        local last
        for _ = 1, tonumber(text) do
          local next = last
          last = coroutine.create(function()
            local x <close> = setmetatable({}, { __close = function() if next then assert(coroutine.close(next)) end end })
            coroutine.yield()
          end)
          coroutine.resume(last)
        end
        local closed, problem = coroutine.close(last)
        conn:send(tostring(closed), " ", tostring(problem):match("C stack overflow") or "")
      end
      """
    ) { $0.arguments = ["--handler-budget", "20", "--memory-limit", "1G"] }
    let client = try server.connect()
    #expect(try client.ask("50") == "true ")
    #expect(try client.ask("200000") == "false C stack overflow")
    try server.stop()
  }

  @Test func `a storm of timers, tasks and yields leaves clients their turn`() throws {
    let server = try MoonportProcess.serving(
      """
      local ran = 0
      local function again() ran = ran + 1 moonport.spawn(again) end
      function h.on_message(conn, text)
        if text == "timers" then for _ = 1, 100000 do moonport.after(0, function() ran = ran + 1 end) end end
        if text == "every" then for _ = 1, 5000 do moonport.every(0.001, function() ran = ran + 1 end) end end
        if text == "yields" then for _ = 1, 5000 do moonport.spawn(function() while true do coroutine.yield() end end) end end
        if text == "tasks" then for _ = 1, 5000 do moonport.spawn(again) end end
        conn:send(text)
      end
      """
    ) { $0.arguments = ["--handler-budget", "20"] }
    let client = try server.connect()
    let other = try server.connect()
    for storm in ["timers", "yields", "tasks", "every"] {
      #expect(try client.ask(storm) == storm)
      for index in 0..<50 { #expect(try other.ask("\(index)") == "\(index)") }
    }
  }
}
