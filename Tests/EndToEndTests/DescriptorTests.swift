// A server with 64 descriptors and 200 clients: it neither spins nor dies, answers its operator, and serves again.

import TestSupport
import Testing

@Suite struct DescriptorTests {
  @Test("with 64 descriptors and 200 clients the server rests, stays reachable, reloads, and serves all in turn")
  func fewDescriptors() throws {
    let server = try MoonportProcess(script: script("1")) {
      $0.workers = 2
      $0.descriptorsMax = 64
    }
    var clients = try server.connect(200)
    let served = try waitUntilFull(server)
    #expect((1..<64).contains(served))

    let before = try server.processorSeconds()
    let still = try clients[199].tryReceive(for: 2)
    let used = try server.processorSeconds() - before

    #expect(still == nil, "the last client is not served yet")
    // Two seconds of a thread that spins are two seconds; sanitizers and a busy machine are allowed a tenth of that.
    #expect(used < 0.2, "\(used) s of processor time while nothing could be done")
    for _ in 0..<20 { #expect(try server.status()["connections"].integer == served) }
    #expect(try clients[0].ask("x") == "1 x")
    try server.reload(script("2"))
    #expect(try clients[0].ask("x") == "2 x")
    for client in clients { try client.send("hello\n") }
    // Each that leaves makes room for one that waits, until all were served.
    for _ in 0..<200 {
      let client = clients.removeFirst()
      #expect(try client.receiveLine() == "2 hello")
      client.close()
    }
    try eventually("all have left") { try server.status()["connections"].integer == 0 }
    #expect(try server.connect().ask("again") == "2 again")
    try server.stop()
  }

  @Test("what is piped in bulk leaves the descriptors of the operator alone, and gives its own back")
  func pipes() throws {
    let server = try MoonportProcess(
      script: """
        local moonport = require "moonport"
        local sink = "unix:" .. arg[0]:match("^(.*)/") .. "/sink"
        moonport.listen { address = "127.0.0.1:0", codec = "line" }
        moonport.listen { address = "127.0.0.1:0", handler = {
          on_open = function(conn) moonport.pipe(conn, assert(moonport.connect(sink))) end } }
        local paused = moonport.shared("paused")
        moonport.listen { address = sink, handler = {
          on_open = function(conn) conn:pause() paused:lpush("ids", conn.id) end } }
        return { on_message = function(conn, text)
          if text == "end" then while paused:llen("ids") > 0 do moonport.close(paused:lpop("ids")) end end
          conn:send(text)
        end }
        """
    ) {
      $0.workers = 1
      $0.descriptorsMax = 128
      $0.listeners = 3
    }
    let first = try server.connect()
    #expect(try first.ask("x") == "x")
    let before = try server.descriptorCount()
    let senders = try (0..<20).map { _ in try server.connect(listener: 1) }
    let bulk = [UInt8](repeating: 0, count: 1 << 20)
    try eventually("pipes are open, besides three sockets for each sender") {
      for sender in senders { _ = try sender.trySend(bulk) }
      return try server.descriptorCount() > before + 3 * senders.count
    }
    var clients: [TestClient] = []
    for _ in 0..<60 { clients.append(try server.connect()) }
    _ = try waitUntilFull(server)
    #expect(try server.descriptorCount() < 128)
    #expect(try server.done("reload") != "")
    #expect(try first.ask("y") == "y")
    for each in senders + clients { each.close() }
    #expect(try first.ask("end") == "end")
    try eventually("all descriptors are back") { try server.descriptorCount() == before }
    try server.stop()
  }

  /// Waits until the server takes nobody more; how many it has.
  private func waitUntilFull(_ server: MoonportProcess) throws -> Int {
    try server.waitForErrors(containing: "out of descriptors")
    var count = -1
    try eventually("the number of clients is settled") {
      let now = try server.status()["connections"].integer ?? 0
      defer { count = now }
      return now == count && now > 0
    }
    return count
  }
}
