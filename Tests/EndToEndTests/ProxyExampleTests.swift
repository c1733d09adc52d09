// examples/proxy.lua in front of servers of the test: turns, failover, half-closes, and reloads with clients in the midst.
//
// Must never know: anything of the script that its user could not see.

import Glibc
import TestSupport
import Testing

@Suite struct ProxyExampleTests {
  private func serve(_ upstreams: [String], workers: Int = 1) throws -> MoonportProcess {
    try MoonportProcess(file: ProjectFiles.path("examples/proxy.lua")) {
      $0.listen = MoonportProcess.anyPort
      $0.workers = workers
      $0.scriptArguments = upstreams
    }
  }

  /// The other end of `client`'s connection, at whichever of the listeners it came out; health checks are passed over.
  private func find(_ client: TestClient, at listener: TestListener) throws -> TestClient? {
    try client.send("who?\n")
    let deadline = Deadline(seconds: Patience.seconds)
    while !deadline.hasPassed {
      let upstream = try listener.accept()
      guard let line = try? upstream.receiveLineOrEnd() else { continue }
      #expect(line == "who?")
      return upstream
    }
    return nil
  }

  @Test func `bytes pass both ways, half-closes included, and clients take turns over the servers`() throws {
    let listeners = [try TestListener(), try TestListener()]
    let server = try serve(listeners.map(\.address))
    for turn in 0..<4 {
      let client = try server.connect()
      // The first worker begins with its second server.
      let upstream = try #require(try find(client, at: listeners[(turn + 1) % 2]))
      try client.send("question")
      try client.halfClose()
      #expect(try upstream.receiveTextUntilEnd() == "question")
      try upstream.send("answer")
      upstream.close()
      #expect(try client.receiveTextUntilEnd() == "answer")
    }
    try server.stop()
  }

  @Test func `a server that is down gets no clients until a check finds it again`() throws {
    let good = try TestListener()
    var bad: TestListener? = try TestListener()
    let address = bad!.address
    bad = nil
    let server = try serve([good.address, address])
    for _ in 0..<3 { #expect(try find(server.connect(), at: good) != nil) }
    try server.waitForErrors(containing: "upstream is down address=\(address) reason=refused")
    let back = try TestListener(address)
    try server.waitForErrors(containing: "upstream is back address=\(address)")
    let clients = try (0..<2).map { _ in try server.connect() }
    for client in clients { try client.send("who?\n") }
    // One of each two goes there.
    let deadline = Deadline(seconds: Patience.seconds)
    var isServed = false
    while !isServed, !deadline.hasPassed { isServed = try back.accept().receiveLineOrEnd() == "who?" }
    #expect(isServed)
  }

  @Test func `with no server a client is let go at once`() throws {
    let gone = try TestListener().address
    let server = try serve([gone])
    #expect(try server.connect().receiveUntilEnd() == [])
    try server.waitForErrors(containing: "no upstream for a client")
  }

  @Test func `piped clients do not notice reloads`() throws {
    let listener = try TestListener()
    let server = try serve([listener.address], workers: 2)
    let pairs = try (0..<4).map { _ in
      let client = try server.connect()
      return (client, try #require(try find(client, at: listener)))
    }
    for round in 0..<5 {
      try server.done("reload")
      for (client, upstream) in pairs {
        try client.send("\(round)\n")
        #expect(try upstream.receiveLine() == "\(round)")
        try upstream.send("\(round)\n")
        #expect(try client.receiveLine() == "\(round)")
      }
    }
    for (client, upstream) in pairs {
      try client.halfClose()
      #expect(try upstream.receiveUntilEnd() == [])
      upstream.close()
      #expect(try client.receiveUntilEnd() == [])
    }
    #expect(try server.status()["errors"].integer == 0)
    try server.stop()
  }
}
