import CompletionIO
import Glibc
import SystemPackage
import Testing

@Suite("Reads")
struct ReadTests {
  let port: CompletionPort

  init() throws { port = try CompletionPort() }

  @Test("a read completes with what arrived")
  func reads() throws {
    let (key, peer) = try loopback(on: port)
    #expect(port.submit(.read, on: key) == .pending)
    #expect(port.poll().isEmpty)
    peer.send("hello")
    let seen = try port.next()
    #expect(seen.kind == .read && seen.key == key && seen.error == nil && seen.text == "hello" && seen.count == 5)
  }

  @Test(
    "bytes that arrived before the read was submitted are delivered when it is, however often the port looked before")
  func arrivedBefore() throws {
    let (key, peer) = try loopback(on: port)
    peer.send("early")
    for _ in 0..<5 { #expect(port.poll().isEmpty) }
    #expect(port.becomesQuiet())
    _ = port.submit(.read, on: key)
    #expect(try port.next().text == "early")
  }

  @Test("one submitted read is one completion, and the bytes that follow wait for the next read")
  func oneShot() throws {
    let (key, peer) = try loopback(on: port)
    _ = port.submit(.read, on: key)
    peer.send("one")
    #expect(try port.next().text == "one")
    peer.send("two")
    #expect(port.becomesQuiet())
    _ = port.submit(.read, on: key)
    #expect(try port.next().text == "two")
  }

  @Test("a message in pieces arrives in as many completions as reads, in order")
  func pieces() throws {
    let (key, peer) = try loopback(on: port)
    var all = ""
    for piece in ["a", "bc", "def"] {
      _ = port.submit(.read, on: key)
      peer.send(piece)
      all += try port.next().text
    }
    #expect(all == "abcdef")
  }

  @Test("a read takes at most 64 KiB and the rest comes with the next reads, nothing lost")
  func large() throws {
    let (key, peer) = try loopback(on: port)
    let sent = (0..<3_000_000).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) }
    let thread = Thread.start(name: "sender") { peer.send(sent) }
    var received: [UInt8] = []
    while received.count < sent.count {
      _ = port.submit(.read, on: key)
      let seen = try port.next()
      #expect(seen.count > 0 && seen.count <= 65536)
      if seen.count == 0 { break }
      received += seen.bytes
    }
    thread.join()
    #expect(received == sent)
  }

  @Test("the reads of one batch lie beside each other and none overwrites another")
  func batch() throws {
    var peers: [(key: HandleKey, peer: Peer)] = []
    for index in 0..<100 {
      let pair = try socketPair(on: port)
      _ = port.submit(.read, on: pair.key)
      pair.peer.send(String(repeating: "\(index) ", count: index + 1))
      peers.append(pair)
    }
    let seen = try port.take(100)
    #expect(Set(seen.map(\.key)).count == 100)
    for one in seen {
      let index = Int(one.key.slot)
      #expect(one.text == String(repeating: "\(index) ", count: index + 1))
    }
  }

  @Test("with a small read buffer every connection still gets its turn while others never stop sending")
  func fairness() throws {
    let small = try CompletionPort(readBufferBytes: 65536, eventsMax: 64)
    var peers: [(key: HandleKey, peer: Peer)] = []
    for _ in 0..<12 { peers.append(try socketPair(on: small)) }
    let chunk = [UInt8](repeating: 7, count: 65536)
    var reads = [Int](repeating: 0, count: peers.count)
    for (key, peer) in peers {
      _ = small.submit(.read, on: key)
      peer.send(chunk)
    }
    for _ in 0..<240 {
      for seen in small.poll() {
        reads[Int(seen.key.slot)] += 1
        peers[Int(seen.key.slot)].peer.send([UInt8](repeating: 7, count: seen.count))
        _ = small.submit(.read, on: seen.key)
      }
    }
    #expect(reads.min()! * 2 >= reads.max()!, "some connections were starved: \(reads)")
  }

  @Test("the peer's half-close is a read of no bytes, and writing to it goes on")
  func halfCloseOfThePeer() throws {
    let (key, peer) = try loopback(on: port)
    _ = port.submit(.read, on: key)
    peer.send("request")
    peer.shutdownWrite()
    #expect(try port.next().text == "request")
    _ = port.submit(.read, on: key)
    let end = try port.next()
    #expect(end.kind == .read && end.count == 0 && end.error == nil)
    #expect(port.becomesQuiet())
    let reply = UnsafeMutableRawBufferPointer.allocate(byteCount: 5, alignment: 1)
    defer { reply.deallocate() }
    reply.copyBytes(from: "reply".utf8)
    #expect(port.write(reply, on: key) == .completed(5))
    #expect(peer.receive(exactly: 5) == Array("reply".utf8))
  }

  @Test("our half-close is the end of the stream for the peer, and reading from it goes on")
  func halfCloseOfOurs() throws {
    let (key, peer) = try loopback(on: port)
    port.shutdownWrite(key)
    #expect(peer.receive() == [])
    _ = port.submit(.read, on: key)
    peer.send("still talking")
    #expect(try port.next().text == "still talking")
  }

  @Test("a reset arrives as the error of the pending read")
  func reset() throws {
    let (key, peer) = try loopback(on: port)
    _ = port.submit(.read, on: key)
    peer.reset()
    let seen = try port.next()
    #expect(seen.kind == .read && seen.error == .connectionReset && seen.bytes.isEmpty)
  }

  @Test("reset makes the peer see a reset")
  func resets() throws {
    let (key, peer) = try loopback(on: port)
    port.reset(key)
    #expect(peer.receive() == nil)
    #expect(!port.isCurrent(key))
  }

  @Test("a cancelled read delivers nothing, and the bytes come with the next one")
  func cancel() throws {
    let (key, peer) = try loopback(on: port)
    _ = port.submit(.read, on: key)
    port.cancelRead(key)
    peer.send("later")
    #expect(port.becomesQuiet())
    _ = port.submit(.read, on: key)
    #expect(try port.next().text == "later")
  }

  @Test("a hang-up while nothing is submitted is delivered once, with its error, and does not spin")
  func hangup() throws {
    let (key, peer) = try loopback(on: port)
    peer.reset()
    let seen = try port.next()
    #expect(seen.kind == .hangup && seen.key == key && seen.error == .connectionReset)
    #expect(port.becomesQuiet())
    #expect(port.isCurrent(key))
  }

  @Test("bytes that came before the hang-up of a paused connection can still be read")
  func hangupWithBytes() throws {
    let (key, peer) = try socketPair(on: port)
    peer.send("last words")
    peer.close()
    let seen = try port.next()
    #expect(seen.kind == .hangup && seen.error == nil)
    _ = port.submit(.read, on: key)
    #expect(try port.next().text == "last words")
    _ = port.submit(.read, on: key)
    let end = try port.next()
    #expect(end.kind == .read && end.count == 0 && end.error == nil)
    #expect(try port.next().kind == .hangup)
    #expect(port.becomesQuiet())
  }
}
