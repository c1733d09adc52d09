// `moonport connect` as a user runs it: on a terminal (a pseudo-terminal here) and redirected, against a server that
// the test plays itself.

import Glibc
import Testing

@Suite("moonport connect, redirected")
struct ConnectRedirectedTests {
  @Test("input goes out byte for byte, and what arrives is written byte for byte")
  func bytes() throws {
    let peer = try ConnectPeer()
    let client = try ConnectClient(redirectedTo: peer.address)
    try peer.accept()
    client.type("one\r\ntwo\t\u{1B}[A\0\nno line end")
    #expect(peer.receives("one\r\ntwo\t\u{1B}[A\0\nno line end"))
    peer.send([0x1B, 0x5B, 0x32, 0x4A, 0xFF, 0x00, 0x0D, 0x0A])
    #expect(client.waits { client.outputBytes.count >= 8 })
    client.endInput()
    #expect(peer.receivesEnd())
    peer.closeConnection()
    #expect(client.exitStatus() == 0)
    #expect(client.outputBytes == [0x1B, 0x5B, 0x32, 0x4A, 0xFF, 0x00, 0x0D, 0x0A])
    #expect(client.errorText.contains("the server closed the connection"))
  }

  @Test("the end of input half-closes, and what arrives after it is still shown")
  func halfClose() throws {
    let peer = try ConnectPeer()
    let client = try ConnectClient(redirectedTo: peer.address)
    try peer.accept()
    client.type("request\n")
    client.endInput()
    #expect(peer.receivesEnd())
    #expect(peer.received == Array("request\n".utf8))
    peer.send("late ")
    #expect(client.waits { client.outputText == "late " })
    peer.send("reply\n")
    peer.closeConnection()
    #expect(client.exitStatus() == 0)
    #expect(client.outputText == "late reply\n")
  }

  @Test("many megabytes pass both ways at once without a deadlock")
  func bulk() throws {
    let peer = try ConnectPeer()
    let client = try ConnectClient(redirectedTo: peer.address)
    try peer.accept()
    let bulk = (0..<4_000_000).map { UInt8(truncatingIfNeeded: $0 &* 31 >> 3) }
    let writer = ConnectBackground { client.type(bulk) }
    let sender = ConnectBackground { peer.send(bulk) }
    #expect(client.waits { client.outputBytes.count >= bulk.count })
    #expect(client.outputBytes == bulk)
    #expect(peer.receives(bulk))
    writer.wait()
    sender.wait()
  }

  @Test("quit leaves with status 0 and is not sent; what came before it arrives")
  func quit() throws {
    let peer = try ConnectPeer()
    let client = try ConnectClient(redirectedTo: peer.address)
    try peer.accept()
    client.type("last words\nquit\nnever sent\n")
    #expect(peer.receivesEnd())
    #expect(peer.received == Array("last words\n".utf8))
    peer.send("farewell\n")
    peer.closeConnection()
    #expect(client.exitStatus() == 0)
    #expect(client.outputText == "farewell\n")
  }

  @Test("quit leaves even when the server does not close")
  func quitUnanswered() throws {
    let peer = try ConnectPeer()
    let client = try ConnectClient(redirectedTo: peer.address)
    try peer.accept()
    client.type("quit\n")
    #expect(client.exitStatus() == 0)
  }

  @Test("while the server is not there the next line of input answers; input behind the answer is sent")
  func retry() throws {
    let peer = try ConnectPeer(listens: false)
    let client = try ConnectClient(redirectedTo: peer.address)
    #expect(client.waits { client.errorText.hasSuffix("retry? (y/n) ") })
    client.type("maybe\n")
    #expect(client.waits { client.errorText.hasSuffix("retry? (y/n) retry? (y/n) ") })
    client.type("y\n")
    #expect(client.waits { client.errorText.components("retry?") == 3 })
    try peer.listen()
    client.type("y\nhello\n")
    try peer.accept()
    #expect(peer.receives("hello\n"))
    peer.closeConnection()
    #expect(client.exitStatus() == 0)
    #expect(client.outputBytes.isEmpty)
  }

  @Test("no, and the end of input, end it with status 1", arguments: ["n\n", "", "N", "x\n"])
  func noRetry(answer: String) throws {
    let peer = try ConnectPeer(listens: false)
    let client = try ConnectClient(redirectedTo: peer.address)
    client.type(answer)
    client.endInput()
    #expect(client.exitStatus() == 1)
    #expect(client.errorText.contains("cannot connect to \(peer.address)"))
  }

  @Test("a connection that breaks is a failure that says so")
  func reset() throws {
    let peer = try ConnectPeer()
    let client = try ConnectClient(redirectedTo: peer.address)
    try peer.accept()
    peer.send("before")
    #expect(client.waits { client.outputText == "before" })
    peer.resetConnection()
    #expect(client.exitStatus() == 1)
    #expect(client.errorText.contains("the connection was lost"))
  }

  @Test("an output that nobody reads ends it with status 1, not with a crash")
  func closedOutput() throws {
    let peer = try ConnectPeer()
    let client = try ConnectClient(redirectedTo: peer.address)
    try peer.accept()
    client.stopReadingOutput()
    peer.send("nobody reads this\n")
    #expect(client.exitStatus() == 1)
  }

  @Test("an address that is none is wrong usage")
  func usage() throws {
    #expect(try ConnectClient(redirectedTo: "nowhere").exitStatus() == 64)
    #expect(try ConnectClient(redirectedTo: "127.0.0.1:0").exitStatus() == 64)
  }
}

@Suite("moonport connect, on a terminal")
struct ConnectTerminalTests {
  @Test("a typed line goes out exactly, and an arriving one appears at once above what is being typed")
  func simultaneous() throws {
    let peer = try ConnectPeer()
    let client = try ConnectClient(onTerminalTo: peer.address)
    try peer.accept()
    #expect(client.waits { client.outputText.contains("connected to") })
    client.type("hal")
    #expect(client.waits { client.rows.last == "hal" })
    peer.send("Bob: hi\n")
    #expect(client.waits { client.rows.suffix(2) == ["Bob: hi", "hal"] })
    client.type("lo\n")
    #expect(peer.receives("hallo\n"))
    #expect(client.waits { client.rows.suffix(3) == ["Bob: hi", "hallo", ""] })
    client.type("aü\u{7F}b\u{15}x y\n")
    #expect(peer.receives("hallo\nx y\n"))
    peer.closeConnection()
    #expect(client.waits { client.outputText.contains("the server closed the connection") })
    #expect(client.isTerminalRestored)
    #expect(client.exitStatus() == 0)
  }

  @Test("escape sequences from the server are shown, not obeyed")
  func harmless() throws {
    let peer = try ConnectPeer()
    let client = try ConnectClient(onTerminalTo: peer.address)
    try peer.accept()
    peer.send("\u{1B}[2J\u{7}evil\u{9B}31m\n")
    #expect(client.waits { client.outputText.contains("^[[2J^Gevil<U+009B>31m") })
    #expect(!client.outputBytes.contains(0x1B))
  }

  @Test("retry asks on the terminal, y tries again, and quit leaves with the terminal restored")
  func retryAndQuit() throws {
    let peer = try ConnectPeer(listens: false)
    let client = try ConnectClient(onTerminalTo: peer.address)
    #expect(client.waits { client.outputText.hasSuffix("retry? (y/n) ") })
    try peer.listen()
    client.type("y\n")
    try peer.accept()
    #expect(client.waits { client.outputText.contains("connected to") })
    client.type("quit\n")
    #expect(peer.receivesEnd())
    #expect(peer.received.isEmpty)
    peer.closeConnection()
    #expect(client.exitStatus() == 0)
    #expect(client.isTerminalRestored)
  }

  @Test("Ctrl-D half-closes and goes on showing what arrives")
  func controlD() throws {
    let peer = try ConnectPeer()
    let client = try ConnectClient(onTerminalTo: peer.address)
    try peer.accept()
    #expect(client.waits { client.outputText.contains("connected to") })
    client.type("quit\u{4}")
    #expect(peer.receives("quit"))
    client.type("\u{4}")
    #expect(peer.receivesEnd())
    peer.send("late\n")
    #expect(client.waits { client.outputText.contains("late") })
    peer.closeConnection()
    #expect(client.exitStatus() == 0)
  }

  @Test("a signal ends it with the terminal restored", arguments: [SIGINT, SIGTERM, SIGHUP])
  func signals(number: Int32) throws {
    let peer = try ConnectPeer()
    let client = try ConnectClient(onTerminalTo: peer.address)
    try peer.accept()
    client.type("half a li")
    #expect(client.waits { client.outputText.hasSuffix("half a li") && !client.isTerminalRestored })
    if number == SIGINT { client.type([0x03]) } else { kill(client.processID, number) }
    #expect(client.exitStatus() == 1000 + number)
    #expect(client.isTerminalRestored)
  }
}

extension String {
  /// How often `part` occurs.
  fileprivate func components(_ part: String) -> Int {
    var count = 0
    var rest = self[...]
    while let place = rest.firstRange(of: part) {
      count += 1
      rest = rest[place.upperBound...]
    }
    return count
  }
}
