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
