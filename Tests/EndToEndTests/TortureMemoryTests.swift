// Scripts that take memory without end, in every way that there is: each gets an error, nobody else notices, and the system has the
// memory back.
//
// Must never know: how memory is counted, or when it is given back.

import Glibc
import TestSupport
import Testing

@Suite(.serialized) struct TortureMemoryTests {
  /// What may be resident beyond what was before an attack, as a fraction.
  private static let growthMax = 0.02
  /// How often an attack is repeated until the memory has stopped growing. What is lost with each round never does.
  private static let roundsMax = 4

  private static let script = """
    local kept = {}
    local function fill(t) for i = 1, 1e12 do t[i] = { i } end end
    local function say(message) print((message:match("^[^\\n]*"))) end
    -- For what ends the connection: its own handler's error would be the log's.
    local function aside(f) say(select(2, moonport.spawn(f):wait())) end
    local acts = {
      tables = function() fill({}) end,
      array = function() local t = {} for i = 1, 1e12 do t[i] = i end end,
      keys = function() local t = {} for i = 1, 1e12 do t["key " .. i] = true end end,
      doubling = function() local s = "x" while true do s = s .. s end end,
      rep = function() return ("x"):rep(1 << 31) end,
      reps = function() local t = {} for i = 1, 1e9 do t[i] = ("x"):rep(1 << 20) .. i end end,
      concat = function() return table.concat(setmetatable({}, { __len = function() return 1e9 end, __index = function() return ("x"):rep(1000) end })) end,
      lines = function() return ("x\\n"):rep(1 << 24):gsub("\\n", "\\n\\n") end,
      format = function() local t = {} for i = 1, 1e9 do t[i] = ("%99.99f"):format(i):rep(1000) end end,
      formatted = function() local s = ("%s"):rep(1 << 22) return s:format(s) end,
      pack = function() local t = {} for i = 1, 200 do t[i] = table.pack(table.unpack({}, 1, 100000)) end return fill(t) end,
      retry = function() while true do pcall(fill, {}) end end,
      handler = function() return xpcall(fill, function() fill({}) end, {}) or error("not enough memory") end,
      closing = function() local x <close> = setmetatable({}, { __close = function() fill({}) end }) fill({}) end,
      closures = function() local f while true do local g = f f = function() return g end end end,
      coroutines = function() local t = {} for i = 1, 1e12 do t[i] = coroutine.create(print) end end,
      wrapped = function() while true do pcall(coroutine.wrap(function() fill({}) end)) end end,
      recursion = function() local function f() return 1 + f() end return f() end,
      context = function(conn) fill(conn.ctx) end,
      kept = function() fill(kept) end,
      task = function() assert(moonport.spawn(function() fill({}) end):wait()) end,
      tasks = function() for i = 1, 1e12 do assert(moonport.spawn(function() sleep(0.3) end)) end end,
      timers = function() for i = 1, 1e12 do assert(moonport.after(0.3, function() end)) end end,
      rooms = function(conn) for i = 1, 1e12 do assert(conn:join("room " .. i)) end end,
      dictionary = function() local d = moonport.shared("full", { max_memory = 4 << 20 }) for i = 1, 1e12 do d:safe_set(i, ("x"):rep(1000)) end end,
      publishing = function() for i = 1, 1e12 do moonport.publish("nobody", ("x"):rep(100000) .. i) end end,
      sending = function(conn) aside(function() for i = 1, 1e12 do assert(conn:send(("x"):rep(100000))) end end) end,
      broadcasting = function(conn)
        conn:join("all")
        aside(function() for i = 1, 1e12 do moonport.broadcast(("x"):rep(100000), { room = "all" }) end end)
      end,
    }
    function h.on_message(conn, text)
      if not acts[text] then return conn:send(text) end
      acts[text](conn)
      print("no error")
      conn:close()
    end
    function h.on_error(conn, message)
      kept = {}
      say(message)
      conn:close()
    end
    """

  /// Acts that fill the Lua state.
  private static let luaActs = [
    "tables", "array", "keys", "doubling", "rep", "reps", "concat", "lines", "format", "formatted", "pack", "retry",
    "handler",
    "closing", "closures", "coroutines", "wrapped", "recursion", "context", "kept", "task",
  ]
  /// Acts that fill what the server keeps for scripts, whose tables stay as long as they once were: the first time makes them so.
  private static let serverActs = ["tasks", "timers", "rooms", "dictionary", "publishing", "sending", "broadcasting"]
  /// What the error of an attack may be about.
  private static let errors = [
    "not enough memory", "budget exceeded", "stack overflow", "too large", "too many", "overflow", "closed",
    "bad argument",
  ]

  @Test func `a script that takes memory without end gets an error, and the system has all of it back`() throws {
    let server = try serving()
    let other = try server.connect()
    // The first time fills what is kept for reuse.
    _ = try attack(server, "tables", other)
    var before = try residentAtRest(server)
    for act in TortureMemoryTests.luaActs { before = try withstand(server, act, other, before) }
    let status = try server.status()
    #expect((status["workers"].elements.first?["memory_errors"].integer ?? 0) >= 10)
    try server.stop()
  }

  @Test func `a script that fills what the server keeps for it gets an error, and the next time takes no more`() throws
  {
    let server = try serving()
    let other = try server.connect()
    for act in TortureMemoryTests.serverActs { _ = try attack(server, act, other) }
    var before = try residentAtRest(server)
    for act in TortureMemoryTests.serverActs { before = try withstand(server, act, other, before) }
    try server.stop()
  }

  private func serving() throws -> MoonportProcess {
    try MoonportProcess.serving(TortureMemoryTests.script) {
      $0.arguments = ["--memory-limit", "64M", "--handler-budget", "0.3", "--log-level", "critical"]
    }
  }

  /// Carries out an attack until the memory has stopped growing, prints its line of the table, and returns the memory that the
  /// next attack has to leave.
  private func withstand(_ server: MoonportProcess, _ act: String, _ other: TestClient, _ resident: Int) throws -> Int {
    var before = resident
    for round in 1...TortureMemoryTests.roundsMax {
      let outcome = try attack(server, act, other)
      let most = before + Int(Double(before) * TortureMemoryTests.growthMax)
      let isBack: Void? = try? eventually("memory is back", timeout: Patience.scaled(8)) {
        try server.residentBytes() <= most
      }
      let after = try server.residentBytes()
      if isBack != nil {
        print(
          "torture: memory, \(act): \(outcome); round \(round); resident \(before / 1024) -> \(after / 1024) KB "
            + growthText(before, after))
        return before
      }
      before = after
    }
    throw TestFailure("\(act): memory still grows after \(TortureMemoryTests.roundsMax) rounds, to \(before) bytes")
  }

  /// Has a script carry out an attack; the error that came of it.
  private func attack(_ server: MoonportProcess, _ act: String, _ other: TestClient) throws -> String {
    let before = server.outputCount(of: "\n")
    let client = try server.connect()
    try client.send(act + "\n")
    _ = try client.waitForEnd()
    #expect(try other.ask("x") == "x")
    try eventually("\(act) has failed") { server.outputCount(of: "\n") > before }
    let error = server.output.split(separator: "\n").dropFirst(before).first.map(String.init) ?? ""
    #expect(TortureMemoryTests.errors.contains { contains(error, $0) }, "\(act): \(error)")
    return TortureMemoryTests.errors.first { contains(error, $0) } ?? error
  }

  /// The memory that is resident once it does not fall any more.
  private func residentAtRest(_ server: MoonportProcess) throws -> Int {
    var least = try server.residentBytes()
    var since = Deadline.uptime
    while Deadline.uptime - since < 2 {
      let now = try server.residentBytes()
      if now < least - least / 100 { (least, since) = (now, Deadline.uptime) }
      usleep(20_000)
    }
    return try server.residentBytes()
  }
}
