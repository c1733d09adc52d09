// What broadcasts do to connections and what follows from them, on the built program: limits, ends, pauses, reloads and the server's
// own end, with what a script sees of them. All of it is as if each broadcast were handed out where the script says it.
//
// Must never know: anything but the program's command line, its streams and its sockets.

import TestSupport
import Testing

@Suite struct BroadcastVisibilityTests {
  /// A listener's options under which one message of 2,000 bytes ends a connection.
  private static let small = "codec = \"line\", output_limit = { soft = 1000, hard = 1000 }"
  private static let overflow = "moonport.broadcast(('x'):rep(2000), { room = 'v' })"

  @Test(arguments: [
    ("join('v')", "nil closed"), ("join('w')", "nil closed"), ("leave('v')", "nil closed"), ("rooms()", "nil closed"),
    ("buffered()", "nil closed"), ("close()", "nil closed"), ("abort()", "nil closed"), ("pause()", "nil closed"),
    ("closed()", "true"), ("send('')", "nil closed"), ("send('a')", "nil closed"), ("write('a', 'b')", "nil closed"),
    ("receive()", "nil closed"), ("set_codec('netstring')", "nil closed"),
    ("set_codec({ decode = function() end, encode = function(m) return m end })", "nil closed"),
  ])
  func `a connection that a broadcast has ended is closed to whatever comes next, and leaves nothing in its slot`(
    call: String, expected: String
  ) throws {
    let stage = try BroadcastStage(workers: 1, members: 1, Self.small)
    let victim = stage.members[0]
    let answer = try stage.driver.ask(
      "local v = kept[\(victim.id)] v:join('v') \(Self.overflow) return v:\(call)")
    #expect(answer == expected)
    #expect(try victim.client.waitForEnd() == .reset)
    // Who comes next has the slot: it is in no room, has the listener's codec, and nothing else is the matter with it.
    let next = try stage.admit()
    #expect(try next.client.ask("return #conn:rooms(), moonport.count('v'), moonport.count('w')") == "0 0 0")
    try stage.run(
      "\(Self.overflow) moonport.broadcast('small', { room = 'v' }) moonport.send(\(next.id), 'for you')", marks: false)
    #expect(try next.client.receiveLine() == "for you")
  }

  @Test(arguments: ["kept[ID]", "kept.up"])
  func `a connection that a broadcast has ended is not piped`(first: String) throws {
    let listener = try TestListener()
    let stage = try BroadcastStage(workers: 1, members: 1, Self.small)
    let victim = stage.members[0]
    try stage.run(
      "kept.up = assert(moonport.connect('\(listener.address)')) kept[\(victim.id)]:join('v')", marks: false)
    let upstream = try listener.accept()
    let other = first == "kept.up" ? "kept[ID]" : "kept.up"
    let pair = "\(first), \(other)".replacing("ID", with: victim.id)
    #expect(try stage.driver.ask("\(Self.overflow) return moonport.pipe(\(pair))") == "nil closed 0 0")
    #expect(try victim.client.waitForEnd() == .reset)
    let next = try stage.admit()
    try stage.run("kept.up:send('still here') moonport.send(\(next.id), 'here, too')", marks: false)
    #expect(try upstream.receive(exactly: 10) == Array("still here".utf8))
    #expect(try next.client.receiveLine() == "here, too")
  }

  @Test func `a client that its own broadcast has ended is not heard any more`() throws {
    let stage = try BroadcastStage(
      workers: 1, members: 1, Self.small, "function h.on_close(_, r) print('closed ' .. r) end")
    let client = stage.members[0].client
    try client.send("conn:join('v') \(Self.overflow)\nprint('heard')\n")
    try stage.server.waitForOutput(containing: "closed overflow\n")
    #expect(try stage.driver.ask("return 1") == "1")
    #expect(stage.server.output == "closed overflow\n")
  }

  @Test(arguments: [1, 2])
  func `what an on_close broadcasts reaches all workers, whenever the connection ended`(workers: Int) throws {
    let body = "function h.on_close(conn) moonport.broadcast('gone') moonport.send(kept.driver, 'told') end"
    for end in ["", " moonport.broadcast('next')", " moonport.send(kept.driver, 'next')"] {
      let stage = try BroadcastStage(workers: workers, members: 3, Self.small, body)
      let victim = try #require(stage.members.firstIndex { $0.isHere })
      try stage.run(
        "kept.driver = conn.id kept[\(stage.members[victim].id)]:join('v') \(Self.overflow)\(end)", marks: false)
      for (index, member) in stage.members.enumerated() where index != victim {
        // One turn has sent it all: nobody else says anything that could push it along.
        if end.contains("broadcast") { #expect(try member.client.receiveLine() == "next") }
        #expect(try member.client.receiveLine() == "gone")
      }
      #expect(try stage.driver.receiveLines(2).sorted() == ["gone", "told"])
    }
  }

  @Test
  func `under the policy pause a client that sends without reading loses nothing of what it broadcasts to itself`()
    throws
  {
    let server = try MoonportProcess.serving(
      """
      local big = ("x"):rep(19000)
      function h.on_message(conn, text)
        if text == "count" then return conn:send(handled or 0) end
        handled = (handled or 0) + 1
        conn:join("self")
        moonport.broadcast(text .. big, { room = "self" })
      end
      """, "codec = \"line\", output_limit = { policy = \"pause\", soft = 20000, hard = 50000 }")
    let client = try TestClient(server.address, receiveBufferBytes: 4096)
    let count = 1000
    try client.send((0..<count).map { "\($0) \n" }.joined())
    // It is paused once the socket is full: from then on nothing is handled, and nothing more than the limit waits.
    let other = try server.connect()
    var before = -1
    try eventually("the client is paused") {
      let handled = Int(try other.ask("count")) ?? 0
      defer { before = handled }
      return handled > 0 && handled == before
    }
    for number in 0..<count { try #require(try client.receiveLine().hasPrefix("\(number) x"), "\(number)") }
  }

  @Test func `an on_drain that always sends more does not keep the other clients waiting`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_message(conn, text)
        if text == "begin" then conn.ctx.flows = true return conn:send("flow") end
        conn:send(text)
      end
      function h.on_drain(conn) if conn.ctx.flows then conn:send("flow") end end
      """, "codec = \"line\", output_limit = { soft = 1, hard = 100000 }")
    let greedy = try server.connect()
    let isOver = Flag()
    try greedy.send("begin\n")
    let reader = TestThread {
      while !isOver.isRaised { _ = try greedy.tryReceive(for: 0.1) }
    }
    let other = try server.connect()
    for number in 0..<50 { #expect(try other.ask("\(number)") == "\(number)") }
    isOver.raise()
    try reader.join()
  }

  @Test(arguments: [1, 2])
  func `what the old code broadcasts while it is replaced is ahead of anything of the new code, on every worker`(
    workers: Int
  ) throws {
    func version(_ name: String) -> String {
      """
      local moonport = require "moonport"
      moonport.listen { address = "127.0.0.1:0", codec = "line" }
      local h, victims = {}, {}
      local function all(text) moonport.broadcast("\(name) " .. text) moonport.broadcast("\(name) " .. text, { room = "r" }) end
      function h.on_open(conn) conn:send(moonport.worker.id) end
      function h.on_message(conn, text)
        if text == "join" then conn:join("r") elseif text == "victim" then victims[#victims + 1] = conn end
        conn:send(text)
      end
      function h.on_save() for _ = 1, 50 do all("saves") end for _, conn in ipairs(victims) do conn:close() end end
      function h.on_close() all("closed") end
      -- The first one's would come to clients that are quicker than the last worker.
      function h.on_start() if "\(name)" == "new" then all("starts") end end
      return h
      """
    }
    let server = try MoonportProcess(script: version("old")) { $0.workers = workers }
    let clients = try (0..<6).map { _ in try server.connect() }
    for client in clients {
      _ = try client.receiveLine()
      #expect(try client.ask("join") == "join")
    }
    let victim = try server.connect()
    _ = try victim.receiveLine()
    #expect(try victim.ask("victim") == "victim")
    try server.folder.replace("main.lua", version("new"))
    #expect(try server.control("reload").status == .exited(0))
    for client in clients {
      // Two lines for each call of `all`: what the old code has said is complete before the first line of the new.
      let lines = try client.receiveLines(workers * 100 + 2 + workers * 2)
      let old = lines.prefix(workers * 100)
      #expect(old.allSatisfy { $0 == "old saves" })
      let new = lines.suffix(2 + workers * 2)
      #expect(new.filter { $0 == "new closed" }.count == 2 && new.filter { $0 == "new starts" }.count == workers * 2)
    }
  }

  @Test(arguments: [1, 2])
  func `what is said while the server stops reaches those who are still there`(workers: Int) throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_open(conn) conn:send(moonport.worker.id) end
      function h.on_close(conn) moonport.broadcast("left") moonport.broadcast("for all") end
      """, workers: workers)
    let clients = try (0..<4).map { _ in try server.connect() }
    var byWorker: [String: [TestClient]] = [:]
    for client in clients { byWorker[try client.receiveLine(), default: []].append(client) }
    try server.stop()
    for group in byWorker.values {
      // Of one worker, each hears of those that went before it.
      let heard = try group.map { try $0.receiveTextUntilEnd() }
      for (index, text) in heard.sorted(by: { $0.utf8.count < $1.utf8.count }).enumerated() {
        let own = occurrences(of: "left\nfor all\n", in: text)
        #expect(own >= index && occurrences(of: "left\n", in: text) == occurrences(of: "for all\n", in: text))
      }
    }
  }
}
