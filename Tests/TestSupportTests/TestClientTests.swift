// Proves the socket half of the test support against a listener in this process and against other programs' sockets.

import Glibc
import TestSupport
import Testing

@Suite struct TestClientTests {
  /// A client and the other end of its connection.
  private func pair(_ address: String = "127.0.0.1:0") throws -> (TestClient, TestClient) {
    let listener = try TestListener(address)
    let client = try TestClient(listener.address)
    return (client, try listener.accept())
  }

  @Test(arguments: ["127.0.0.1:0", "[::1]:0", "[::]:0", ":0", "unix:"])
  func `lines and bytes come as they were sent`(address: String) throws {
    let folder = try TemporaryFolder()
    let (client, server) = try pair(address == "unix:" ? "unix:\(folder.file("socket"))" : address)
    try server.send("first\nsecond\r\nrest")
    #expect(try client.receiveLine() == "first")
    #expect(try client.receiveLine() == "second\r")
    #expect(try client.receive(exactly: 2) == Array("re".utf8))
    try server.halfClose()
    #expect(try client.receiveTextUntilEnd() == "st")
    #expect(try client.receiveLineOrEnd() == nil)
  }

  @Test func `the receiver of a half-close still answers`() throws {
    let (client, server) = try pair()
    try client.send("request")
    try client.halfClose()
    #expect(try server.receiveTextUntilEnd() == "request")
    try server.send("reply")
    server.close()
    #expect(try client.receiveTextUntilEnd() == "reply")
  }

  @Test func `a close and a reset are told apart`() throws {
    let (client, server) = try pair()
    server.close()
    #expect(try client.waitForEnd() == .closed)
    let (other, reset) = try pair()
    reset.reset()
    #expect(try other.waitForEnd() == .reset)
  }

  @Test func `what does not come in time is a failure that shows what did`() throws {
    let (client, server) = try pair()
    client.timeout = 0.05
    try server.send("half a li")
    #expect {
      try client.receiveLine()
    } throws: {
      contains("\($0)", "half a li")
    }
    #expect(throws: TestFailure.self) { try client.waitForEnd() }
  }

  @Test func `a line cut by the end is a failure`() throws {
    let (client, server) = try pair()
    try server.send("cut")
    server.close()
    #expect(throws: TestFailure.self) { try client.receiveLine() }
  }

  @Test func `nothing, something and the end are told apart`() throws {
    let (client, server) = try pair()
    #expect(try client.tryReceive(for: 0.02) == nil)
    try server.send("x")
    #expect(try client.tryReceive(for: Patience.seconds) == Array("x".utf8))
    server.close()
    #expect(try client.tryReceive(for: Patience.seconds) == [])
  }

  @Test func `sending to a peer that does not read fails after the timeout`() throws {
    let listener = try TestListener()
    let client = try TestClient(listener.address, receiveBufferBytes: 4_096)
    let server = try listener.accept()
    server.timeout = 0.05
    let flood = [UInt8](repeating: 0, count: 16 << 20)
    #expect(throws: TestFailure.self) { try server.send(flood) }
    try eventually("the kernel takes no more") { try server.trySend(flood) == 0 }
    withExtendedLifetime(client) {}
  }

  @Test func `one thread sends a lot while another receives it`() throws {
    let (client, server) = try pair()
    let flood = [UInt8](repeating: 7, count: 4 << 20)
    let sender = TestThread {
      try server.send(flood)
      server.close()
    }
    #expect(try client.receiveUntilEnd() == flood)
    try sender.join()
  }

  @Test func `talks to another program's socket`() throws {
    let folder = try TemporaryFolder()
    let path = folder.file("echo.sock")
    let socat = try ChildProcess(Launch("socat", ["UNIX-LISTEN:\(path)", "EXEC:cat"]))
    try eventually("socat listens") { access(path, F_OK) == 0 }
    var client: TestClient?
    try eventually("socat accepts") {
      client = try? TestClient("unix:\(path)")
      return client != nil
    }
    try client?.send("there and back\n")
    #expect(try client?.receiveLine() == "there and back")
    try client?.halfClose()
    #expect(try socat.waitForExit() == .exited(0))
  }

  @Test(arguments: ["", "localhost", "127.0.0.1", "127.0.0.1:x", "[::1:5", "999.0.0.1:5"])
  func `text that is no address is an error`(text: String) {
    #expect(throws: TestFailure.self) { try TestClient(text) }
  }
}
