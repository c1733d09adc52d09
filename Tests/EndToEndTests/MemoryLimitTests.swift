// The memory limit of a running server: a script that takes too much gets an error, and everybody else goes on. That the memory
// comes back, whatever takes it, is shown by TortureMemoryTests.
//
// Must never know: how memory is counted.

import TestSupport
import Testing

@Suite(.serialized) struct MemoryLimitTests {
  @Test func `a script that takes too much gets an error that the status counts, and everybody else goes on`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_message(conn, text)
        if text == "fill" then local t = {} for i = 1, 1e12 do t[i] = { i } end end
        conn:send(text)
      end
      function h.on_error(conn, message) conn:send((message:match("^[^\\n]*"))) end
      """
    ) { $0.arguments = ["--memory-limit", "64M", "--handler-budget", "10"] }
    let other = try server.connect()
    let answer = try server.connect().ask("fill")
    #expect(contains(answer, "main.lua:6: not enough memory"), "\(answer)")
    #expect(try other.ask("x") == "x")
    #expect(contains(try server.control("status").output, "out of memory: "))
    try server.stop()
  }

  @Test func `in a full state a handler that takes little goes on, also where many messages came at once`() throws {
    let server = try MoonportProcess.serving(
      """
      local kept = {}
      function h.on_message(conn, text)
        if text == "count" then return conn:send(collectgarbage("count") // 1 | 0) end
        for _ = 1, tonumber(text) // 1000 do kept[#kept + 1] = ("x"):rep(960) .. #kept end
        conn:send("ok")
      end
      function h.on_error(conn, message) conn:send((message:match("^[^\\n]*"))) end
      """
    ) { $0.arguments = ["--memory-limit", "64M"] }
    let client = try server.connect()
    // The soft limit is at three quarters: 49,152 KB.
    while try #require(Int(client.ask("count"))) < 48_800 { #expect(try client.ask("100000") == "ok") }
    while try #require(Int(client.ask("count"))) < 49_500 { #expect(try client.ask("10000") == "ok") }
    try client.send(String(repeating: "10000\n", count: 600))
    #expect(try client.receiveLines(600).filter { $0 != "ok" } == [])
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

  @Test(.enabled(if: Patience.sanitizer == nil, "a sanitizer keeps what is freed"))
  func `what is free goes back to the system after a reload`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_message(conn, text)
        -- Less than what counts as much, and freed before the handler returns.
        local t = {}
        for i = 1, 40000 do t[i] = "a string of some length, so that it takes a block of its own " .. i end
        t = nil
        collectgarbage()
        conn:send(text)
      end
      """)
    let client = try server.connect()
    let before = try server.residentBytes()
    #expect(try client.ask("fill") == "fill")
    let filled = try server.residentBytes()
    #expect(filled > before + 3_000_000)
    _ = try server.control("reload")
    try eventually("free memory is back") { try server.residentBytes() < before + (filled - before) / 2 }
    #expect(try client.ask("and still serves") == "and still serves")
    try server.stop()
  }
}
