// One test for each failure that was found in the running server: what a client or a script did, and what must not follow.
//
// Must never know: anything but the program's command line, its streams and its sockets.

import Synchronization
import TestSupport
import Testing

@Suite struct RegressionTests {
  @Test func `Messages without a byte in a queue that drops its oldest do not keep the worker busy for ever`() throws {
    let server = try MoonportProcess(
      script: """
        local moonport = require "moonport"
        moonport.listen { address = "127.0.0.1:0", output_limit = { policy = "drop_oldest" } }
        local h = { version = "1" }
        function h.on_message(conn, bytes)
          for _ = 1, 40 do conn:send("") end
          conn:send("done")
        end
        return h
        """
    ) { $0.workers = 1 }
    let client = try server.connect()
    try client.send("go")
    #expect(try client.receive(exactly: 4) == Array("done".utf8))
  }

  @Test func `A message beyond the hard limit makes none of the waiting ones go`() throws {
    let server = try MoonportProcess(
      script: """
        local moonport = require "moonport"
        moonport.listen { address = "127.0.0.1:0", output_limit = { policy = "drop_oldest", hard = 1000, soft = 1000 } }
        local h = { version = "1" }
        function h.on_message(conn, bytes)
          conn:send("first")
          conn:send(("x"):rep(1001))
        end
        return h
        """
    ) { $0.workers = 1 }
    let client = try server.connect()
    try client.send("go")
    #expect(try client.receive(exactly: 5) == Array("first".utf8))
  }

  @Test func `A receive that timed out leaves what has come to on_message, although nothing more comes`() throws {
    let server = try MoonportProcess(
      script: """
        local moonport = require "moonport"
        moonport.listen { address = "127.0.0.1:0", codec = "line" }
        local h = { version = "1" }
        function h.on_open(conn)
          moonport.after(0, function() print(conn:receive(100, 0.2)) end)
        end
        function h.on_message(conn, text) conn:send("got " .. text) end
        return h
        """
    ) { $0.workers = 1 }
    let client = try server.connect()
    try client.send("line\n")
    #expect(try client.receiveLine() == "got line")
  }

  @Test func `A codec set from outside a handler cuts what has already come, although nothing more comes`() throws {
    let server = try MoonportProcess(
      script: """
        local moonport = require "moonport"
        moonport.listen { address = "127.0.0.1:0", codec = { type = "fixed", length = 100 } }
        local h = { version = "1" }
        function h.on_open(conn)
          moonport.after(0.2, function() conn:set_codec("line") end)
        end
        function h.on_message(conn, text) conn:send("got " .. text) end
        return h
        """
    ) { $0.workers = 1 }
    let client = try server.connect()
    try client.send("line\n")
    #expect(try client.receiveLine() == "got line")
  }

  @Test func `A codec that closes the connection it decodes for gives receive the end, not a wait for ever`() throws {
    let server = try MoonportProcess(
      script: """
        local moonport = require "moonport"
        moonport.listen { address = "127.0.0.1:0", codec = { decode = function(bytes, position) closing:close() end, encode = function(text) return text end } }
        local h = { version = "1" }
        function h.on_open(conn)
          closing = conn
          print("received", conn:receive())
        end
        return h
        """
    ) { $0.workers = 1 }
    let client = try server.connect()
    try client.send("line\n")
    try server.waitForOutput(containing: "received\tnil\tclosed")
    #expect(try client.receiveTextUntilEnd() == "")
  }

  @Test func `A handler of replaced code that catches every error is ended all the same`() throws {
    let server = try MoonportProcess(
      script: """
        local moonport = require "moonport"
        moonport.listen { address = "127.0.0.1:0", codec = "line" }
        local h = { version = "1" }
        function h.on_message(conn, text)
          if text == "loop" then
            while true do pcall(moonport.sleep, 0.01) end
          end
          conn:send("generation " .. moonport.generation)
        end
        return h
        """
    ) { $0.workers = 1 }
    let looping = try server.connect()
    try looping.send("loop\n")
    try looping.send("never answered\n")
    #expect(try server.control("reload").status == .exited(0))
    #expect(try server.control("reload").status == .exited(0))
    #expect(try looping.receiveTextUntilEnd() == "")
    let client = try server.connect()
    try client.send("hello\n")
    #expect(try client.receiveLine() == "generation 3")
  }

  @Test func `A timer that a handler sets after its code was replaced ends with that handler`() throws {
    let server = try MoonportProcess(
      script: """
        local moonport = require "moonport"
        moonport.listen { address = "127.0.0.1:0", codec = "line" }
        local h = { version = "1" }
        function h.on_message(conn, text)
          conn:send("sleeping")
          moonport.sleep(0.3)
          moonport.every(0.01, function() conn:send("beat") end)
        end
        return h
        """
    ) { $0.workers = 1 }
    let client = try server.connect()
    try client.send("go\n")
    #expect(try client.receiveLine() == "sleeping")
    #expect(try server.control("reload").status == .exited(0))
    #expect(try client.receiveLine() == "beat")
    #expect(try server.control("reload").status == .exited(0))
    #expect(try server.control("reload").status == .exited(0))
    try eventually("the beats end") { try client.tryReceive(for: 0.3) == nil }
  }

  @Test func `Names of different bytes are different rooms, and come back as they were given`() throws {
    let server = try MoonportProcess(
      script: #"""
        local moonport = require "moonport"
        moonport.listen { address = "127.0.0.1:0", codec = "line" }
        local h = { version = "1" }
        local names = { "\xff", "\xfe", "\u{e9}", "e\u{301}", "a\0b", "a" }
        function h.on_open(conn)
          for _, name in ipairs(names) do conn:join(name) end
        end
        function h.on_message(conn, text)
          local same, rooms = 0, conn:rooms()
          for _, room in ipairs(rooms) do
            for _, name in ipairs(names) do
              if room == name and moonport.count(name) == 1 then same = same + 1 end
            end
          end
          conn:send(#rooms .. " rooms, " .. same .. " as given")
          moonport.broadcast("to nobody", { room = "\xfd" })
          moonport.broadcast("to one", { room = "\xff" })
        end
        return h
        """#
    ) { $0.workers = 1 }
    let client = try server.connect()
    try client.send("go\n")
    #expect(try client.receiveLine() == "6 rooms, 6 as given")
    #expect(try client.receiveLine() == "to one")
  }

  @Test func `os.exit in a script that a reload tries, or in a handler, ends no server`() throws {
    let server = try MoonportProcess(
      script: #"""
        local moonport = require "moonport"
        moonport.listen { address = "127.0.0.1:0", codec = "line" }
        local h = { version = "1" }
        function h.on_message(conn, text)
          local ok, problem = pcall(os.exit, 1)
          conn:send(tostring(ok))
        end
        return h
        """#
    ) { $0.workers = 1 }
    let client = try server.connect()
    try client.send("exit\n")
    #expect(try client.receiveLine() == "false")
    try server.folder.write("main.lua", "os.exit(1)")
    let reload = try server.control("reload")
    #expect(reload.status == .exited(1))
    try client.send("exit\n")
    #expect(try client.receiveLine() == "false")
  }

  @Test func `A module whose loading failed can be required again`() throws {
    let folder = try TemporaryFolder()
    try folder.write("late.lua", "error('boom')")
    let server = try MoonportProcess(
      script: #"""
        local moonport = require "moonport"
        moonport.listen { address = "127.0.0.1:0", codec = "line" }
        local h = { version = "1" }
        function h.on_message(conn, text)
          local ok, value = pcall(require, "late")
          conn:send(ok and value or "failed: " .. value:match("[^:]+$"))
        end
        local _ = false and require "late"
        return h
        """#, folder: folder
    ) { $0.workers = 1 }
    let client = try server.connect()
    for _ in 1...2 {
      try client.send("go\n")
      #expect(try client.receiveLine() == "failed:  boom")
    }
  }

  @Test func `Clients that come while a reload removes their listener are let go, and end no server`() throws {
    let folder = try TemporaryFolder()
    func script(_ name: String) -> String {
      """
      local moonport = require "moonport"
      moonport.listen {
        address = "unix:\(folder.file(name))",
        codec = { decode = function(bytes, position) return bytes, #bytes + 1 end, encode = tostring },
      }
      moonport.listen { address = "127.0.0.1:0", codec = "line" }
      return { on_message = function(conn, text) conn:send(text) end }
      """
    }
    let server = try MoonportProcess(script: script("a"), folder: folder) {
      $0.workers = 2
      $0.listeners = 2
    }
    let isDone = Flag()
    let clients = ["a", "b"].map { name in
      TestThread {
        while !isDone.isRaised {
          guard let client = try? TestClient("unix:\(folder.file(name))") else { continue }
          try? client.send("hello")
          _ = try? client.tryReceive(for: 0.05)
        }
      }
    }
    for round in 1...12 {
      try folder.write("main.lua", script(round % 2 == 0 ? "a" : "b"))
      #expect(try server.control("reload").status == .exited(0))
    }
    isDone.raise()
    for client in clients { try client.join() }
    try server.stop()
  }

  @Test func `Messages from one connection to another keep their order while the code is replaced`() throws {
    let server = try MoonportProcess(
      script: """
        local moonport = require "moonport"
        moonport.listen { address = "127.0.0.1:0", codec = "line" }
        local h = {}
        function h.on_message(conn, text)
          local id, number = text:match("(%d+) (%d+)")
          if not id then return conn:send(conn.id) end
          moonport.send(tonumber(id), number)
        end
        return h
        """
    ) { $0.workers = 2 }
    let sender = try server.connect()
    let receiver = try server.connect()
    try receiver.send("who am I\n")
    let id = try receiver.receiveLine()
    let count = 5_000
    let sending = TestThread {
      for first in stride(from: 0, to: count, by: 20) {
        try sender.send((first..<first + 20).map { "\(id) \($0)\n" }.joined())
      }
    }
    let reloading = TestThread {
      for _ in 1...8 { _ = try server.control("reload") }
    }
    var next = 0
    while next < count, try receiver.receiveLine() == String(next) { next += 1 }
    #expect(next == count)
    try sending.join()
    try reloading.join()
    try server.stop()
  }
}
