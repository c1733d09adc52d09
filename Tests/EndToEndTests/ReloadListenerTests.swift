// What a reload does to listeners, their limits, handlers and codecs, and to the connections that came through them.

import Glibc
import TestSupport
import Testing

@Suite struct ReloadListenerTests {
  @Test("clients of a listener that was closed count against its cap for an address once it is opened again")
  func perAddress() throws {
    func text(_ version: String, listens: Bool = true) -> String {
      """
      local moonport = require "moonport"
      moonport.listen { address = "127.0.0.1:0", codec = "line" }
      \(listens ? "moonport.listen { address = 'unix:' .. arg[1], codec = 'line', max_connections_per_ip = 2 }" : "")
      return { on_message = function(conn, text) conn:send("\(version) " .. text) end }
      """
    }
    let folder = try TemporaryFolder()
    let socket = folder.file("capped.sock")
    let server = try MoonportProcess(serving: text("1"), workers: 1, listeners: 2, ["--", socket])
    var inside: [TestClient] = []
    func letIn() throws {
      try eventually("a client is let in") {
        let client = try TestClient("unix:\(socket)")
        guard let answer = try? client.ask("x"), answer.hasSuffix(" x") else { return false }
        inside.append(client)
        return true
      }
    }
    for _ in 0..<2 { try letIn() }
    try server.reload(text("2", listens: false))
    try server.reload(text("3"))
    #expect(try TestClient("unix:\(socket)").waitForEnd() == .closed)
    // Each that leaves makes room for one, and for no more.
    for _ in 0..<4 {
      inside.removeFirst().close()
      try letIn()
      #expect(try TestClient("unix:\(socket)").waitForEnd() == .closed)
    }
  }

  @Test("listeners are compared by address: kept, added or closed, and clients of a closed one stay")
  func listeners() throws {
    let folder = try TemporaryFolder()
    let paths = ["a", "b", "c"].map { folder.file("\($0).sock") }
    func listening(_ version: String, _ indexes: [Int], _ options: String = "") -> String {
      let calls = indexes.map { "moonport.listen { address = 'unix:\(paths[$0])', codec = 'line' \(options) }" }
      return """
        local moonport = require "moonport"
        \(calls.joined(separator: "\n"))
        return { version = "\(version)", on_message = function(conn, text) conn:send("\(version) " .. text) end }
        """
    }
    let server = try MoonportProcess(script: listening("1", [0, 1]), folder: folder) { $0.listeners = 2 }
    let a = try TestClient("unix:\(paths[0])")
    let b = try TestClient("unix:\(paths[1])")
    #expect(try a.ask("x") == "1 x")
    #expect(try b.ask("x") == "1 x")

    try server.reload(listening("2", [1, 2]))

    #expect(try a.ask("still here") == "2 still here")
    #expect(try b.ask("still here") == "2 still here")
    #expect(throws: TestFailure.self) { try TestClient("unix:\(paths[0])") }
    #expect(access(paths[0], F_OK) != 0, "the closed listener's file is gone")
    #expect(try TestClient("unix:\(paths[1])").ask("new") == "2 new")
    #expect(try TestClient("unix:\(paths[2])").ask("new") == "2 new")
    let listeners = try server.status()["listeners"].elements.map { $0["address"].text ?? "" }
    #expect(Set(listeners) == ["unix:\(paths[1])", "unix:\(paths[2])"])
    try server.reload(listening("3", [0, 1, 2]))
    #expect(try TestClient("unix:\(paths[0])").ask("again") == "3 again")
    #expect(try a.ask("x") == "3 x")
  }

  @Test("a kept listener's new codec and limits are for new connections, and its handlers for all")
  func keptListener() throws {
    let server = try MoonportProcess(serving: script("1"))
    let old = try server.connect()
    #expect(try old.ask("x") == "1 x")
    try server.reload(
      script("2", codec: "\"netstring\", max_connections = 2"))
    #expect(try old.ask("lines") == "2 lines")
    let new = try server.connect()
    try new.send("5:hello,")
    #expect(try new.receive(exactly: 10) == Array("7:2 hello,".utf8))
    let third = try server.connect()
    #expect(try third.waitForEnd() == .closed)
    #expect(try server.status()["refused"]["max_connections"].integer == 1)
  }

  @Test("the handler table of a listener is replaced with the script")
  func listenerHandler() throws {
    func two(_ version: String) -> String {
      """
      local moonport = require "moonport"
      local function handler(name) return { on_message = function(conn, text) conn:send(name .. " \(version) " .. text) end } end
      moonport.listen { address = "127.0.0.1:0", codec = "line", handler = handler("first") }
      moonport.listen { address = "[::1]:0", codec = "line", handler = handler("second") }
      return { version = "\(version)" }
      """
    }
    let server = try MoonportProcess(serving: two("1"), listeners: 2)
    let clients = try [server.connect(listener: 0), server.connect(listener: 1)]
    #expect(try clients.map { try $0.ask("x") } == ["first 1 x", "second 1 x"])
    try server.reload(two("2"))
    #expect(try clients.map { try $0.ask("x") } == ["first 2 x", "second 2 x"])
  }

  @Test("a codec written in Lua is replaced for connections that use it, half a message included")
  func scriptedCodec() throws {
    func framed(_ version: String, _ mark: String) -> String {
      let codec = """
        {
          decode = function(bytes, position)
            local stop = bytes:find("\(mark)", position, true)
            if stop then return bytes:sub(position, stop - 1), stop + 1 end
          end,
          encode = function(message) return message .. "\(mark)" end,
        }
        """
      return script(version, codec: codec)
    }
    let server = try MoonportProcess(serving: framed("1", ";"))
    let client = try server.connect()
    try client.send("one;half")
    #expect(try client.receive(exactly: 6) == Array("1 one;".utf8))
    try server.reload(framed("2", "!"))
    try client.send(" and half!")
    #expect(try client.receive(exactly: 16) == Array("2 half and half!".utf8))
    // What is not used any more is given back: this goes on for as many reloads as one likes.
    for version in 3..<13 { try server.reload(framed("\(version)", version % 2 == 0 ? "!" : ";")) }
    try client.send("end!")
    #expect(try client.receive(exactly: 7) == Array("12 end!".utf8))
  }

  @Test("a codec that a connection chose itself is kept")
  func ownCodec() throws {
    let body = """
      function handlers.on_open(conn)
        conn:set_codec {
          decode = function(bytes, position)
            local stop = bytes:find("\\n", position, true)
            if stop then return bytes:sub(position, stop - 1):upper(), stop + 1 end
          end,
          encode = function(message) return message .. "\\n" end,
        }
      end
      """
    let server = try MoonportProcess(serving: script("1", body))
    let client = try server.connect()
    #expect(try client.ask("loud") == "1 LOUD")
    try server.reload(script("2"))
    #expect(try client.ask("loud") == "2 LOUD")
    #expect(try server.connect().ask("quiet") == "2 quiet")
  }
}
