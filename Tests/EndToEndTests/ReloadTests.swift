// What a reload keeps, what it replaces and what it ends, one sentence of the contract at a time.

import Glibc
import TestSupport
import Testing

@Suite struct ReloadTests {
  // MARK: State

  @Test("on_save hands its state to on_restore on each worker, with the old version")
  func saveAndRestore() throws {
    let counting = """
      local total, from = 0, "nothing"
      function handlers.on_message(conn, text)
        total = total + 1
        conn:send(("%s %d %d %s"):format(handlers.version, moonport.worker.id, total, from))
      end
      function handlers.on_save() return { total = total, worker = moonport.worker.id } end
      function handlers.on_restore(saved, old_version)
        assert(saved.worker == moonport.worker.id, "another worker's state")
        total, from = saved.total, tostring(old_version)
      end
      """
    let server = try MoonportProcess(serving: script("one", counting), workers: 2)
    let clients = try server.connect(2)
    let first = try clients.map { try $0.ask("a") }
    #expect(Set(first) == ["one 1 1 nothing", "one 2 1 nothing"])
    #expect(try clients[0].ask("b").hasSuffix(" 2 nothing"))

    try server.reload(script("two", counting))

    let workers = first.map { $0.split(separator: " ")[1] }
    #expect(try clients[0].ask("c") == "two \(workers[0]) 3 one")
    #expect(try clients[1].ask("c") == "two \(workers[1]) 2 one")
    try server.reload(script("three", counting))
    #expect(try clients[1].ask("d") == "three \(workers[1]) 3 two")
  }

  @Test("on_restore gets nil from code that saves nothing and has no version")
  func nothingSaved() throws {
    let server = try MoonportProcess(serving: script("1", "handlers.version = nil"))
    let client = try server.connect()
    try server.reload(
      script(
        "2",
        """
        local seen = "on_restore was not called"
        function handlers.on_restore(...) seen = select("#", ...) .. " " .. tostring((...)) .. " " .. tostring(select(2, ...)) end
        function handlers.on_message(conn) conn:send(seen) end
        """))
    #expect(try client.ask("x") == "2 nil nil")
  }

  @Test("ctx survives by reference: the same table, with the functions and cycles in it")
  func contextByReference() throws {
    let server = try MoonportProcess(
      serving: script(
        "1",
        """
        function handlers.on_message(conn, text)
          local ctx = conn.ctx
          ctx.count = (ctx.count or 0) + 1
          ctx.itself = ctx
          ctx.old = function() return "called " .. text end
          conn:send(tostring(ctx))
        end
        """))
    let client = try server.connect()
    let name = try client.ask("first")
    try server.reload(
      script(
        "2",
        """
        function handlers.on_message(conn)
          local ctx = conn.ctx
          conn:send(("%s %s %d %s"):format(tostring(ctx), tostring(ctx.itself == ctx), ctx.count, ctx.old()))
        end
        """))
    #expect(try client.ask("second") == "\(name) true 1 called first")
  }

  @Test("a half-received message survives and is handled by the new code")
  func halfReceivedMessage() throws {
    let server = try MoonportProcess(serving: script("1"))
    let client = try server.connect()
    #expect(try client.ask("whole") == "1 whole")
    try client.send("first ha")
    try eventually("the half has arrived") { try server.status()["bytes_in"].integer == 14 }
    try server.reload(script("2"))
    #expect(try client.ask("lf") == "2 first half")
  }

  @Test("queued output survives, and what the new code sends comes behind it")
  func queuedOutput() throws {
    let flood = """
      function handlers.on_message(conn, text)
        if text ~= "flood" then return conn:send(handlers.version .. " " .. text) end
        local line = ("x"):rep(1000)
        for number = 1, 6000 do conn:send(("%d %s"):format(number, line)) end
      end
      """
    let server = try MoonportProcess(serving: script("1", flood))
    let slow = try TestClient(server.address, receiveBufferBytes: 4096)
    let other = try server.connect()
    try slow.send("flood\n")
    try eventually("the flood is queued") { try server.status()["messages_out"].integer == 6000 }
    try server.reload(script("2", flood))
    try slow.send("mark\n")
    #expect(try other.ask("served") == "2 served")
    let padding = String(repeating: "x", count: 1000)
    for number in 1...6000 {
      let line = try slow.receiveLine()
      guard line == "\(number) \(padding)" else { throw TestFailure("line \(number) is \(line.prefix(40))") }
    }
    #expect(try slow.receiveLine() == "2 mark")
  }

  @Test("rooms and ids stay, on every worker")
  func roomsAndIDs() throws {
    let server = try MoonportProcess(
      serving: script(
        "1",
        """
        function handlers.on_open(conn) conn:join("hall"); conn:join("own" .. conn.id) end
        function handlers.on_message(conn, text) conn:send(tostring(conn.id)) end
        """))
    let clients = try server.connect(8)
    let ids = try clients.map { try $0.ask("id") }
    #expect(Set(ids).count == 8)
    try server.reload(
      script(
        "2",
        """
        function handlers.on_message(conn, text)
          local id, what = text:match("^(%d+) (.*)$")
          if id then return moonport.send(tonumber(id), what) end
          if text == "hall" then return moonport.broadcast("hall " .. moonport.count("hall"), { room = "hall" }) end
          local rooms = conn:rooms()
          table.sort(rooms)
          conn:send(conn.id .. " " .. table.concat(rooms, ","))
        end
        """))
    for (client, id) in zip(clients, ids) { #expect(try client.ask("rooms") == "\(id) hall,own\(id)") }
    try clients[0].send("hall\n")
    for client in clients { #expect(try client.receiveLine() == "hall 8") }
    for (client, id) in zip(clients, ids) {
      try clients[3].send("\(id) hello \(id)\n")
      #expect(try client.receiveLine() == "hello \(id)")
    }
  }

  // MARK: The switch

  @Test("on_start runs on every worker with the new generation's number, and status shows it with its hash")
  func onStart() throws {
    let body = """
      function handlers.on_start(worker) print(("start %d of %d"):format(worker, moonport.generation)) end
      """
    let server = try MoonportProcess(serving: script("1", body), workers: 3)
    let before = try server.status()
    try server.reload(script("2", body))
    for generation in 1...2 {
      for worker in 1...3 { try server.waitForOutput(containing: "start \(worker) of \(generation)\n") }
    }
    let after = try server.status()
    #expect(before["generation"].integer == 1)
    #expect(after["generation"].integer == 2)
    #expect(before["hash"].text != after["hash"].text)
    try server.reload(script("1", body))
    #expect(try server.status()["hash"].text == before["hash"].text)
  }

  @Test("what the old code has broadcast is delivered before anything of the new code")
  func orderOfBroadcasts() throws {
    let body = """
      local function shout() moonport.broadcast(tostring(moonport.generation)) end
      function handlers.on_start() shout(); moonport.every(0.001, shout) end
      function handlers.on_message(conn, text) shout() end
      """
    let server = try MoonportProcess(serving: script("1", body))
    let clients = try server.connect(4)
    let reloads = isLongRun ? 300 : 40
    let readers = clients.map { client in
      TestThread {
        var newest = 0
        while newest <= reloads {
          let generation = Int(try client.receiveLine()) ?? -1
          guard generation >= newest else { throw TestFailure("generation \(generation) came after \(newest)") }
          newest = generation
        }
      }
    }
    for version in 0..<reloads { try server.reload(script("\(version % 2)", body)) }
    for reader in readers { try reader.join(timeout: Patience.scaled(60)) }
  }

  @Test("descriptors and threads do not grow with the number of reloads, failed ones included")
  func nothingLeaks() throws {
    let server = try MoonportProcess(serving: script("0"))
    let client = try server.connect()
    let threads = try server.threadCount()
    for version in 1...3 { try server.reload(script("\(version)")) }
    try eventually("the reload's thread has ended") { try server.threadCount() == threads }
    let descriptors = try server.descriptorCount()
    for version in 4...24 { try server.reload(script("\(version)")) }
    try server.replaceScript("no Lua")
    for _ in 0..<5 { _ = try server.refused("reload") }
    try eventually("threads and descriptors are as before") {
      try server.threadCount() == threads && server.descriptorCount() <= descriptors
    }
    #expect(try client.ask("x") == "24 x")
  }

  @Test("--listen goes on replacing the address of the script's listener")
  func listenOption() throws {
    let server = try MoonportProcess(script: script("1")) {
      $0.listen = MoonportProcess.anyPort
    }
    let client = try server.connect()
    try server.reload(script("2"))
    #expect(try client.ask("x") == "2 x")
    #expect(try server.connect().ask("y") == "2 y")
    try server.reload("return { version = '3', on_message = function(conn, bytes) conn:send('3 ' .. bytes) end }\n")
    #expect(try client.ask("x") == "3 x")
  }
}
