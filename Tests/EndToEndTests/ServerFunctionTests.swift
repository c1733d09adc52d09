// What reaches beyond one connection, on the built program: broadcast, rooms, send, write and close by id, count, and the
// order in which it all arrives, on one worker and across several.
//
// Must never know: anything but the program's command line, its streams and its sockets.

import TestSupport
import Testing

@Suite struct ServerFunctionTests {
  /// Does what its clients ask for, and tells each its worker and id at first.
  private static let switchboard = """
    function h.on_open(conn) conn:send(moonport.worker.id .. " " .. conn.id) end
    function h.on_message(conn, text)
      local command, rest = text:match("^(%S+) ?(.*)$")
      if command == "all" then moonport.broadcast(rest)
      elseif command == "others" then moonport.broadcast(rest, { except = conn })
      elseif command == "except" then local id, what = rest:match("^(%d+) (.*)$") moonport.broadcast(what, { except = tonumber(id) })
      elseif command == "room" then local room, what = rest:match("^(%S+) (.*)$") moonport.broadcast(what, { room = room })
      elseif command == "roommates" then local room, what = rest:match("^(%S+) (.*)$") moonport.broadcast(what, { room = room, except = conn })
      elseif command == "join" then conn:join(rest) conn:send("joined " .. rest)
      elseif command == "leave" then conn:leave(rest) conn:send("left " .. rest)
      elseif command == "count" then conn:send(moonport.count(rest ~= "" and rest or nil))
      elseif command == "send" then local id, what = rest:match("^(%d+) (.*)$") moonport.send(tonumber(id), what)
      elseif command == "write" then local id, what = rest:match("^(%d+) (.*)$") moonport.write(tonumber(id), what .. "!\\n")
      elseif command == "close" then local id, what = rest:match("^(%d+) ?(.*)$") moonport.close(tonumber(id), what ~= "" and what or nil)
      elseif command == "try" then conn:send(tostring(moonport.send(tonumber(rest), "x")) .. " " .. tostring(select(2, moonport.send(tonumber(rest), "x"))))
      else conn:send(text) end
    end
    function h.on_close(conn, reason) print("closed " .. reason) end
    """

  /// `count` clients with the worker and the id each of them is told.
  private static func clients(_ server: MoonportProcess, _ count: Int) throws -> [(
    client: TestClient, worker: String, id: String
  )] {
    try (0..<count).map { _ in
      let client = try server.connect()
      let words = try client.receiveLine().split(separator: " ").map(String.init)
      return (client, words[0], words[1])
    }
  }

  @Test(arguments: [1, 2, 4])
  func `broadcast reaches every client of every worker, and except leaves one out`(workers: Int) throws {
    let server = try MoonportProcess.serving(ServerFunctionTests.switchboard, workers: workers)
    let all = try ServerFunctionTests.clients(server, 8)
    #expect(Set(all.map(\.worker)).count == workers)
    try all[0].client.send("all one\n")
    for member in all { #expect(try member.client.receiveLine() == "one") }
    try all[1].client.send("others two\n")
    for index in 0..<8 where index != 1 { #expect(try all[index].client.receiveLine() == "two") }
    try all[2].client.send("except \(all[5].id) three\n")
    for index in 0..<8 where index != 5 { #expect(try all[index].client.receiveLine() == "three") }
    // Those that were left out have nothing before the next.
    try all[0].client.send("all four\n")
    for member in all { #expect(try member.client.receiveLine() == "four") }
  }

  @Test(arguments: [1, 2, 4])
  func `a room reaches its members on every worker, and only them`(workers: Int) throws {
    let server = try MoonportProcess.serving(ServerFunctionTests.switchboard, workers: workers)
    let all = try ServerFunctionTests.clients(server, 8)
    for member in all[0..<5] { #expect(try member.client.ask("join a") == "joined a") }
    for member in all[3..<8] { #expect(try member.client.ask("join b") == "joined b") }
    #expect(try all[7].client.ask("count a") == "5")
    #expect(try all[7].client.ask("count b") == "5")
    #expect(try all[7].client.ask("count c") == "0")
    #expect(try all[7].client.ask("count") == "8")
    try all[7].client.send("room a to a\n")
    for member in all[0..<5] { #expect(try member.client.receiveLine() == "to a") }
    try all[3].client.send("roommates b to b\n")
    for member in all[4..<8] { #expect(try member.client.receiveLine() == "to b") }
    #expect(try all[4].client.ask("leave a") == "left a")
    try all[0].client.send("room a again\n")
    for member in all[0..<4] { #expect(try member.client.receiveLine() == "again") }
    try all[0].client.send("all last\n")
    for member in all { #expect(try member.client.receiveLine() == "last") }
  }

  @Test(arguments: [1, 2])
  func `send, write and close by id reach a connection on any worker`(workers: Int) throws {
    let server = try MoonportProcess.serving(ServerFunctionTests.switchboard, workers: workers)
    let all = try ServerFunctionTests.clients(server, 4)
    for (from, to) in [(0, 1), (1, 2), (2, 0), (0, 2), (3, 3)] {
      try all[from].client.send("send \(all[to].id) from \(from)\nwrite \(all[to].id) also\n")
      #expect(try all[to].client.receiveLines(2) == ["from \(from)", "also!"])
    }
    try all[0].client.send("send \(all[1].id) last words\nclose \(all[1].id)\nclose \(all[2].id) my reason\n")
    #expect(try all[1].client.receiveLine() == "last words")
    #expect(try all[1].client.receiveLineOrEnd() == nil)
    #expect(try all[2].client.receiveLineOrEnd() == nil)
    try eventually("both were told") {
      server.outputCount(of: "closed script\n") == 1 && server.outputCount(of: "closed my reason\n") == 1
    }
    try eventually("both are forgotten") { try all[0].client.ask("count") == "2" }
  }

  @Test func `an id that is gone, or never was, is harmless, and "closed" where that is known`() throws {
    let server = try MoonportProcess.serving(ServerFunctionTests.switchboard)
    let all = try ServerFunctionTests.clients(server, 2)
    all[1].client.close()
    try eventually("it is forgotten") { try all[0].client.ask("count") == "1" }
    // The slot has a new owner now, which must not get what was meant for the old one.
    let next = try ServerFunctionTests.clients(server, 1)[0]
    for id in [all[1].id, "0", "511", "4096", "123456789", "9223372036854775807", "-1"] {
      #expect(try all[0].client.ask("try \(id)") == "nil closed", "\(id)")
    }
    try all[0].client.send("send \(all[1].id) x\nclose \(all[1].id)\nwrite \(all[1].id) x\n")
    #expect(try next.client.ask("well") == "well")
  }

  @Test func `across workers an id that is gone is harmless, too`() throws {
    let server = try MoonportProcess.serving(ServerFunctionTests.switchboard, workers: 2)
    let all = try ServerFunctionTests.clients(server, 2)
    #expect(all[0].worker != all[1].worker)
    all[1].client.close()
    try eventually("it is forgotten") { try all[0].client.ask("count") == "1" }
    let next = try ServerFunctionTests.clients(server, 1)[0]
    try all[0].client.send("send \(all[1].id) x\nwrite \(all[1].id) x\nclose \(all[1].id)\nsend \(next.id) for you\n")
    #expect(try next.client.receiveLine() == "for you")
    #expect(try next.client.ask("well") == "well")
  }

  @Test(arguments: [1, 2, 4])
  func `messages from one sender to one receiver arrive in order, by any way`(workers: Int) throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_open(conn) conn:join("all") conn:send(conn.id) end
      function h.on_message(conn, text)
        local sender, id, first, last = text:match("^(%S+) (%d+) (%d+) (%d+)$")
        id = tonumber(id)
        for number = first, last do
          local line = ("%s %d"):format(sender, number)
          if number % 3 == 0 then moonport.broadcast(line, { room = "all", except = conn })
          elseif number % 3 == 1 then moonport.send(id, line)
          else moonport.write(id, line .. "\\n") end
        end
      end
      """, workers: workers)
    let receiver = try server.connect()
    let id = try receiver.receiveLine()
    let senders = 4
    let rounds = 100
    let perRound = 30
    try inParallel(senders) { index in
      let client = try server.connect()
      // What the other senders broadcast is read by nobody here; it fits into the queue.
      for round in 0..<rounds {
        try client.send("\(index) \(id) \(round * perRound) \(round * perRound + perRound - 1)\n")
      }
      try client.halfClose()
      _ = try client.waitForEnd()
    }
    var next = [Int](repeating: 0, count: senders)
    for _ in 0..<senders * rounds * perRound {
      let words = try receiver.receiveLine().split(separator: " ").compactMap { Int($0) }
      #expect(words[1] == next[words[0]])
      next[words[0]] += 1
    }
  }

  @Test func `a client that left is forgotten: counts, rooms and broadcasts know it no more`() throws {
    let server = try MoonportProcess.serving(ServerFunctionTests.switchboard, workers: 2)
    let watcher = try ServerFunctionTests.clients(server, 1)[0].client
    for round in 0..<20 {
      let guests = try ServerFunctionTests.clients(server, 10)
      for guest in guests { #expect(try guest.client.ask("join room") == "joined room") }
      #expect(try watcher.ask("count room") == "10")
      for (index, guest) in guests.enumerated() {
        (index + round) % 2 == 0 ? guest.client.close() : guest.client.reset()
      }
      try watcher.send("room room anybody?\n")
      try eventually("all are forgotten") {
        try watcher.ask("count room") == "0" && watcher.ask("count") == "1"
      }
    }
    let status = try server.control("status", "--json").output
    #expect(contains(status, "\"connections\":1") && contains(status, "\"errors\":0"))
  }

  @Test(arguments: [
    ("moonport.broadcast()", "bad argument #1 to 'broadcast'"),
    ("moonport.broadcast({})", "bad argument #1 to 'broadcast'"),
    ("moonport.broadcast('x', 'room')", "bad argument #2 to 'broadcast'"),
    ("moonport.broadcast('x', { rom = 'a' })", "unknown option \"rom\""),
    ("moonport.broadcast('x', { room = 1 })", "option 'room' must be a string"),
    ("moonport.broadcast('x', { except = 'me' })", "option 'except' must be a connection or an id"),
    ("moonport.send()", "bad argument #1 to 'send'"), ("moonport.send('x', 'y')", "bad argument #1 to 'send'"),
    ("moonport.send(1)", "bad argument #2 to 'send'"), ("moonport.send(1, {})", "bad argument #2 to 'send'"),
    ("moonport.write(nil, 'x')", "bad argument #1 to 'write'"), ("moonport.close()", "bad argument #1 to 'close'"),
    ("moonport.close(1, {})", "bad argument #2 to 'close'"), ("moonport.count({})", "bad argument #1 to 'count'"),
    ("moonport.sleep()", "bad argument #1 to 'sleep'"), ("moonport.sleep('x')", "bad argument #1 to 'sleep'"),
    ("moonport.after('x', print)", "bad argument #1 to 'after'"), ("moonport.after(1)", "bad argument #2 to 'after'"),
    ("moonport.every(-1, print)", "bad argument #1 to 'every'"), ("moonport.every(1, 2)", "bad argument #2 to 'every'"),
    ("moonport.log.info()", "bad argument #1 to 'info'"), ("moonport.log.warn('x', 1)", "bad argument #2 to 'warn'"),
    ("require()", "bad argument #1 to 'require'"), ("require 'no.such.module'", "module 'no.such.module' not found"),
  ])
  func `wrong use raises an error that names the function, the argument and the script's line`(
    call: String, problem: String
  ) throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_message(conn, text)

        \(call)
      end
      function h.on_error(conn, message) conn:send((message:gsub("\\n.*", ""))) end
      """)
    let reported = try server.connect().ask("x")
    #expect(contains(reported, "main.lua:7: ") && contains(reported, problem), "\(reported)")
  }

  @Test func `worker and generation tell where and what the script runs as`() throws {
    let server = try MoonportProcess.serving(
      "function h.on_open(conn) conn:send(moonport.worker.id, '/', moonport.worker.count, ' ', moonport.generation) end",
      workers: 2)
    let answers = try (0..<2).map { _ in
      let client = try server.connect()
      return (client, try client.receiveLine())
    }
    #expect(Set(answers.map(\.1)) == ["1/2 1", "2/2 1"])
  }

  @Test func `log writes one structured line with the client's bytes escaped, and print a whole line`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_message(conn, text)
        moonport.log.warn("said " .. text, { number = 5, text = text })
        moonport.log.debug("not at this level")
        print(text, 1, nil, true)
        conn:send("ok")
      end
      """)
    #expect(try server.connect().ask("evil\u{1b}[31m\u{7}") == "ok")
    try server.waitForErrors(containing: "warn")
    let line = server.errors.split(separator: "\n").first { contains(String($0), "said") }.map(String.init) ?? ""
    #expect(contains(line, "number=5") && !line.utf8.contains(0x1b) && !line.utf8.contains(7), "\(line)")
    #expect(!contains(server.errors, "not at this level"))
    try server.waitForOutput(containing: "\t1\tnil\ttrue\n")
  }
}
