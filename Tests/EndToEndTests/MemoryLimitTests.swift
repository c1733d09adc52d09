// The memory limit of a running server: a script that takes too much gets an error, everybody else goes on, and the memory
// comes back.
//
// Must never know: how memory is counted.

import TestSupport
import Testing

@Suite(.serialized) struct MemoryLimitTests {
  private static let script = """
    local kept = {}
    local acts = {
      tables = function() local t = {} for i = 1, 1e12 do t[i] = { i } end end,
      array = function() local t = {} for i = 1, 1e12 do t[i] = i end end,
      doubling = function() local s = "x" while true do s = s .. s end end,
      rep = function() return ("x"):rep(1 << 31) end,
      reps = function() local t = {} for i = 1, 1e9 do t[i] = ("x"):rep(1 << 20) .. i end end,
      retry = function() while true do pcall(function() local t = {} for i = 1, 1e12 do t[i] = { i } end end) end end,
      closures = function() local f while true do local g = f f = function() return g end end end,
      coroutines = function() local t = {} for i = 1, 1e12 do t[i] = coroutine.create(print) end end,
      rooms = function(conn) for i = 1, 1e12 do conn.ctx[i] = { i } end end,
      task = function() moonport.spawn(function() local t = {} for i = 1, 1e12 do t[i] = { i } end end):wait() error("not enough memory") end,
      recursion = function() local function f() return 1 + f() end return f() end,
      lines = function() return ("x\\n"):rep(1 << 24):gsub("\\n", "\\n\\n") end,
      format = function() local t = {} for i = 1, 1e9 do t[i] = ("%99.99f"):format(i):rep(1000) end end,
      formatted = function() local s = ("%s"):rep(1 << 22) return s:format(s) end,
    }
    function h.on_message(conn, text)
      if acts[text] then acts[text](conn) else conn:send(text) end
    end
    function h.on_error(conn, message) conn:send((message:match("^[^\\n]*"))) end
    """

  @Test func `a script that takes too much in any way gets an error, and memory and clients are as before`() throws {
    let server = try MoonportProcess.serving(MemoryLimitTests.script) {
      $0.arguments = ["--memory-limit", "64M", "--handler-budget", "0.3"]
    }
    let other = try server.connect()
    func attack(_ act: String) throws {
      let client = try server.connect()
      let answer = try client.ask(act)
      let expected = [
        "not enough memory", "budget exceeded", "stack overflow", "too large", "invalid format", "bad argument",
      ]
      #expect(expected.contains { contains(answer, $0) }, "\(act): \(answer)")
      #expect(try other.ask("x") == "x")
    }
    let acts = [
      "tables", "array", "doubling", "rep", "reps", "retry", "closures", "coroutines", "rooms", "task", "recursion",
      "lines", "format",
      "formatted",
    ]
    for act in acts { try attack(act) }
    let resident = try server.residentBytes()
    for act in acts { try attack(act) }
    try eventually("memory is given back") { try server.residentBytes() - resident < 8_000_000 }
    let status = try server.control("status", "--json").output
    #expect(!contains(status, "\"memory_errors\":0"), "\(status)")
    #expect(contains(try server.control("status").output, "out of memory: "))
    try server.stop()
  }

  @Test func `a script that takes too much to load is not loaded`() throws {
    let folder = try TemporaryFolder()
    let path = try folder.write("main.lua", "local t = {} for i = 1, 1e12 do t[i] = { i } end return {}")
    let check = try MoonportProcess.runTool(["check", path, "--memory-limit", "16M"])
    #expect(check.status == .exited(1))
    #expect(
      contains(check.errors, "main.lua:1: not enough memory: this worker's scripts are at the --memory-limit"),
      "\(check)")
  }

  @Test func `the limit is given in bytes or with a unit, and too little of it is refused`() throws {
    let folder = try TemporaryFolder()
    let path = try folder.write("main.lua", "return {}")
    for size in ["0", "1048576", "2m", "64M", "1G", "4096K"] {
      #expect(try MoonportProcess.runTool(["check", path, "--memory-limit", size]).status == .exited(0))
    }
    for size in ["1", "-1", "64MB", "M", "1T", "1000000", "99999999999G"] {
      #expect(try MoonportProcess.runTool(["check", path, "--memory-limit", size]).status == .exited(64), "\(size)")
    }
  }
}
