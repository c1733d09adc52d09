// publish and subscribe on the built program: who gets what, in which order, what is refused, and what a reload does to it.
//
// Must never know: anything but the program's command line, its streams and its sockets.

import TestSupport
import Testing

@Suite struct ChannelTests {
  @Test func `every worker's subscribers get the values as they were, the publisher's own worker included`() throws {
    let server = try MoonportProcess.serving(
      """
      moonport.subscribe("news", function(...)
        local a, b, c, d = ...
        print(moonport.worker.id, select("#", ...), #a, b.x[2].y, c, math.type(d))
      end)
      function h.on_message(conn) conn:send(tostring(moonport.publish("news", "a\\0b", { x = { 1, { y = true } } }, nil, 2.0))) end
      """, workers: 3)
    #expect(try server.connect().ask("go") == "true")
    for worker in 1...3 { try server.waitForOutput(containing: "\(worker)\t4\t3\ttrue\tnil\tfloat\n") }
    #expect(try server.connect().ask("go") == "true")
    try eventually("each has two") { occurrences(of: "float\n", in: server.output) == 6 }
  }

  @Test func `each subscriber has tables of its own, and a message without values arrives too`() throws {
    let server = try MoonportProcess.serving(
      """
      local function note(t) if t then t.n = t.n + 1 end print("got " .. (t and t.n or "nothing")) end
      moonport.subscribe("c", note)
      moonport.subscribe("c", note)
      function h.on_message(conn, text)
        local t = { n = 1 }
        if text == "t" then moonport.publish("c", t) else moonport.publish("c") end
        conn:send(t.n)
      end
      """)
    let client = try server.connect()
    #expect(try client.ask("t") == "1")
    try eventually("both got 2") { server.outputCount(of: "got 2\n") == 2 }
    #expect(try client.ask("none") == "1")
    try eventually("both got nothing") { server.outputCount(of: "got nothing\n") == 2 }
  }

  @Test func `a function may wait, starts keep the order of one publisher, and an error ends nothing`() throws {
    let server = try MoonportProcess.serving(
      """
      local started = {}
      moonport.subscribe("c", function(n)
        started[#started + 1] = n
        if n == 3 then error("three on purpose") end
        sleep(n == 1 and 0.05 or 0)
        if n == 100 then print("started " .. table.concat(started, " ")) end
      end)
      function h.on_message(conn) for n = 1, 100 do moonport.publish("c", n) end end
      """, workers: 2)
    try server.connect().send("go\n")
    let all = "started " + (1...100).map(String.init).joined(separator: " ") + "\n"
    try eventually("both workers started all in order") { server.outputCount(of: all) == 2 }
    try server.waitForErrors(containing: "main.lua:8: three on purpose")
    try server.waitForErrors(containing: "stack traceback")
  }

  @Test func `publishing does not run a subscriber inside the publisher, and one that publishes again holds up nobody`()
    throws
  {
    let server = try MoonportProcess.serving(
      """
      local depth, count, stop = 0, 0, false
      moonport.subscribe("loop", function()
        depth = depth + 1
        assert(depth == 1)
        if not stop then moonport.publish("loop") end
        depth = depth - 1
        count = count + 1
      end)
      function h.on_message(conn, text)
        depth = depth + 1
        if text == "go" then moonport.publish("loop") end
        if text == "stop" then stop = true end
        depth = depth - 1
        conn:send(count > 10 and "many" or "few")
      end
      """)
    let client = try server.connect()
    #expect(try client.ask("go") == "few")
    try eventually("it goes round and clients are answered") { try client.ask("x") == "many" }
    #expect(try client.ask("stop") == "many")
    #expect(!contains(server.errors, "assertion failed"))
  }

  @Test func `a cancelled subscription gets nothing more, not even what was published before`() throws {
    let server = try MoonportProcess.serving(
      """
      local first, second
      first = moonport.subscribe("c", function(text) print("first " .. text) second:cancel() end)
      second = moonport.subscribe("c", function(text) print("second " .. text) end)
      function h.on_message(conn, text)
        if text == "cancel" then
          moonport.publish("c", "late")
          conn:send(tostring(first:cancel()), " ", tostring(first:cancel()), " ", tostring(second:cancel()))
        else
          moonport.publish("c", text)
          conn:send("published")
        end
      end
      """)
    let client = try server.connect()
    #expect(try client.ask("one") == "published")
    try server.waitForOutput(containing: "first one\n")
    #expect(try client.ask("cancel") == "true false false")
    #expect(try client.ask("two") == "published")
    #expect(try server.status()["subscriptions"].integer == 0)
    #expect(server.output == "first one\n")
  }

  @Test func `wrong arguments raise with function, argument and line`() throws {
    let server = try MoonportProcess.serving(
      """
      local t = {}
      t.t = t
      local cases = {
        function() moonport.publish() end,
        function() moonport.publish({}) end,
        function() moonport.publish("c", 1, { players = { 1, 2, { conn = print } } }) end,
        function() moonport.publish("c", t) end,
        function() moonport.subscribe() end,
        function() moonport.subscribe("c") end,
        function() moonport.subscribe("c", {}) end,
        function() moonport.subscribe("c", print).cancel() end,
      }
      function h.on_message(conn, text) conn:send(select(2, pcall(cases[tonumber(text)]))) end
      """)
    let client = try server.connect()
    let expected = [
      ":8: bad argument #1 to 'publish' (string expected, got no value)",
      ":9: bad argument #1 to 'publish' (string expected, got table)",
      ":10: bad argument #3 to 'publish' (players[3].conn: a function cannot be plain data)",
      ":11: bad argument #2 to 'publish' (t: a cycle cannot be plain data)",
      ":12: bad argument #1 to 'subscribe' (string expected, got nil)",
      ":13: bad argument #2 to 'subscribe' (function expected, got nil)",
      ":14: bad argument #2 to 'subscribe' (function expected, got table)",
      ":15: bad argument #1 to 'cancel' (subscription expected, got no value)",
    ]
    for (index, text) in expected.enumerated() {
      let answer = try client.ask("\(index + 1)")
      #expect(answer.hasSuffix("main.lua\(text)"), "\(answer)")
    }
  }

  @Test func `there is a bound on subscriptions, and cancelling makes room`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_message(conn)
        local all = {}
        while true do
          local subscription, problem = moonport.subscribe("c" .. #all % 10, print)
          if not subscription then conn:send(#all, " ", problem) break end
          all[#all + 1] = subscription
        end
        for _, subscription in ipairs(all) do subscription:cancel() end
        conn:send(tostring(moonport.subscribe("c", print) ~= nil))
      end
      """)
    let client = try server.connect()
    #expect(try client.ask("x") == "65536 too many subscriptions")
    #expect(try client.receiveLine() == "true")
  }

  @Test func `a worker too far behind does not get the message, the publisher learns it, and it is counted`() throws {
    let server = try MoonportProcess.serving(
      """
      local text = ("x"):rep(1 << 20)
      local got = 0
      moonport.subscribe("big", function() got = got + 1 end)
      function h.on_message(conn, what)
        if what == "count" then return conn:send(got) end
        -- The own worker is as far behind as any: it delivers once this handler has returned.
        for sent = 0, 200 do
          local ok, problem = moonport.publish("big", text)
          if not ok then return conn:send(sent, " ", problem) end
        end
      end
      """)
    let client = try server.connect()
    #expect(try client.ask("fill") == "63 overflow")
    try eventually("what was taken is delivered") { try client.ask("count") == "63" }
    let status = try server.status()
    #expect(status["dropped"].integer == 1 && status["published"].integer == 64 && status["delivered"].integer == 63)
    #expect(try client.ask("fill") == "63 overflow")
  }

  @Test func `any handler may publish: while loading, when starting, saving, restoring and stopping`() throws {
    let server = try MoonportProcess(
      serving: script("1", Self.everywhere("1")), workers: 2)
    try eventually("both workers' on_start reached both") { server.outputCount(of: "1 got start 1\n") == 4 }
    try server.reload(script("2", Self.everywhere("2")))
    try eventually("the new ones too") { server.outputCount(of: "2 got start 2\n") == 4 }
    // Loading the new code reaches those who subscribe then; what it saves and restores is published for the new ones.
    try eventually("what the new script published while it loaded") { server.outputCount(of: "1 got load 2\n") == 4 }
    try eventually("what was saved") { server.outputCount(of: "2 got save 1\n") == 4 }
    try eventually("what was restored") { server.outputCount(of: "2 got restore 2\n") == 4 }
    #expect(server.outputCount(of: "1 got load 1\n") == 0)
    try server.done("stop")
    #expect(try server.waitForExit() == .exited(0))
  }

  private static func everywhere(_ version: String) -> String {
    """
    moonport.subscribe("c", function(text) print("\(version) got " .. text) end)
    assert(moonport.publish("c", "load \(version)"))
    function handlers.on_start() assert(moonport.publish("c", "start \(version)")) end
    function handlers.on_save() assert(moonport.publish("c", "save \(version)")) end
    function handlers.on_restore() assert(moonport.publish("c", "restore \(version)")) end
    function handlers.on_stop() assert(moonport.publish("c", "stop \(version)")) end
    """
  }

  @Test
  func `a reload replaces the subscriptions, one that fails leaves them, and suspended old code subscribes no more`()
    throws
  {
    let text = { (version: String) in
      script(
        version,
        """
        local kept = moonport.subscribe("c", function(text) print("\(version) got " .. text) end)
        function handlers.on_message(conn, text)
          if text == "wait" then
            conn:send("waiting")
            local subscription, problem = moonport.subscribe("c", print)
            assert(subscription and conn:receive() == "go on")
            conn:send(tostring(subscription:cancel()), " ", tostring(kept:cancel()))
            subscription, problem = moonport.subscribe("c", print)
            return conn:send(tostring(subscription), " ", problem)
          end
          conn:send(tostring(moonport.publish("c", text)))
        end
        """)
    }
    let server = try MoonportProcess(serving: text("1"), workers: 2)
    let waiting = try server.connect()
    #expect(try waiting.ask("wait") == "waiting")
    let client = try server.connect()
    #expect(try client.ask("one") == "true")
    try eventually("both got it") { server.outputCount(of: "1 got one\n") == 2 }
    #expect(server.outputCount(of: "one\n") == 3, "and the handler's own subscription")
    try server.replaceScript(text("2") + "error('no')")
    _ = try server.refused("reload")
    #expect(try client.ask("two") == "true")
    try eventually("the failed reload has left all") { server.outputCount(of: "1 got two\n") == 2 }
    #expect(try server.status()["subscriptions"].integer == 3)
    try server.reload(text("2"))
    #expect(try server.status()["subscriptions"].integer == 2)
    #expect(try client.ask("three") == "true")
    try eventually("the new code got it") { server.outputCount(of: "2 got three\n") == 2 }
    #expect(try waiting.ask("go on") == "false false")
    #expect(try waiting.receiveLine() == "nil reloaded")
    #expect(server.outputCount(of: "three\n") == 2)
  }

  @Test func `a script that is only checked publishes to nobody`() throws {
    let folder = try TemporaryFolder()
    let path = try folder.write(
      "main.lua",
      """
      local moonport = require "moonport"
      assert(moonport.subscribe("c", print))
      assert(moonport.publish("c", "text"))
      return {}
      """)
    let result = try MoonportProcess.runTool(["check", path])
    #expect(result.status == .exited(0) && result.output.isEmpty, "\(result)")
  }
}
