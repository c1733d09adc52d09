import CompletionIO
import Glibc
import SystemPackage
import Testing

@Suite("Relays")
struct RelayTests {
  let port: CompletionPort

  init() throws { port = try CompletionPort() }

  /// Two connections of the port with their peers, non-blocking on our side.
  private func pair(unix: Bool) throws -> (a: (key: HandleKey, peer: Peer), b: (key: HandleKey, peer: Peer)) {
    let ends = try (unix ? socketPair(on: port) : loopback(on: port), unix ? socketPair(on: port) : loopback(on: port))
    for key in [ends.0.key, ends.1.key] { _ = fcntl(port.descriptor(of: key)!, F_SETFL, O_NONBLOCK) }
    return ends
  }

  private static func pattern(_ count: Int, _ seed: Int) -> [UInt8] {
    // One block made byte by byte and then copied: under a sanitizer millions of steps take longer than anybody waits. Its length is
    // a prime, so that a lost or doubled buffer does not fit.
    var bytes = (0..<4099).map { UInt8(truncatingIfNeeded: ($0 &+ seed) &* 2_654_435_761 >> 7) }
    while bytes.count < count { bytes += bytes }
    return Array(bytes[..<count])
  }

  /// Dequeues until `condition` holds.
  private func run(until condition: () -> Bool) throws {
    let end = CompletionPort.clock() + patienceNanoseconds
    while !condition() {
      guard CompletionPort.clock() < end else { throw Errno.timedOut }
      #expect(port.dequeue(timeoutNanoseconds: 1_000_000).isEmpty)
    }
  }

  @Test("what one socket gets the other one sends, both ways, until each has ended its side", arguments: [false, true])
  func bothWays(unix: Bool) throws {
    let (a, b) = try pair(unix: unix)
    #expect(port.submit(.relay(to: b.key), on: a.key) == .pending)
    #expect(port.submit(.relay(to: a.key), on: b.key) == .pending)
    a.peer.send("question")
    try run { port.relayedBytes(from: a.key) == 8 }
    #expect(b.peer.receive(exactly: 8) == Array("question".utf8))
    b.peer.send("the answer")
    try run { port.relayedBytes(from: b.key) == 10 }
    #expect(a.peer.receive(exactly: 10) == Array("the answer".utf8))
    #expect(port.becomesQuiet())

    a.peer.shutdownWrite()
    let first = try port.next()
    #expect(first.kind == .relay && first.key == a.key && first.error == nil && first.count == 0)
    port.shutdownWrite(b.key)
    #expect(b.peer.receive() == [])
    // The other direction goes on.
    b.peer.send("late")
    try run { port.relayedBytes(from: b.key) == 14 }
    #expect(a.peer.receive(exactly: 4) == Array("late".utf8))
    b.peer.close()
    #expect(try port.next().key == b.key)
    #expect(port.becomesQuiet())
    #expect(port.relayedBytes == 22)
  }

  @Test("bytes behind an urgent one, at which a read stops, do not wait for more to come")
  func urgent() throws {
    let (a, b) = try pair(unix: false)
    #expect(port.submit(.relay(to: b.key), on: a.key) == .pending)
    a.peer.send("first")
    try run { port.relayedBytes(from: a.key) == 5 }
    #expect(port.becomesQuiet())
    // All of it is there before the port looks: one edge for everything.
    a.peer.send("ab")
    #expect(send(a.peer.descriptor, "!", 1, Int32(MSG_OOB)) == 1)
    a.peer.send("cd")
    try run { port.relayedBytes(from: a.key) == 9 }
    #expect(b.peer.receive(exactly: 9) == Array("firstabcd".utf8))
  }

  @Test(
    "bulk in both directions arrives byte for byte, by splice and by copies, through no more pipes than are allowed",
    arguments: [false, true], [0, 1, 32])
  func bulk(unix: Bool, pipes: Int) throws {
    let count = 3_000_000
    port.limitPipes(pipes)
    let (a, b) = try pair(unix: unix)
    _ = port.submit(.relay(to: b.key), on: a.key)
    _ = port.submit(.relay(to: a.key), on: b.key)
    var threads: [ThreadHandle] = []
    let equal = Results()
    for (peer, own, other, place) in [(a.peer, 1, 2, 0), (b.peer, 2, 1, 1)] {
      threads.append(
        Thread.start(name: "sender") {
          peer.send(Self.pattern(count, own))
          peer.shutdownWrite()
        })
      threads.append(
        Thread.start(name: "receiver") {
          equal.set(place, peer.receive(exactly: count) == Self.pattern(count, other) && peer.receive() == [])
        })
    }
    // Both may end in the same batch.
    var ended = 0
    while ended < 2 {
      for over in try port.take() {
        #expect(over.kind == .relay && over.error == nil)
        port.shutdownWrite(over.key == a.key ? b.key : a.key)
        ended += 1
      }
    }
    for thread in threads { thread.join() }
    #expect(equal.all == [true, true])
    #expect(port.relayedBytes == UInt64(2 * count))
    #expect(port.openPipes <= pipes)
    port.limitPipes(0)
    #expect(port.openPipes == 0)
  }

  @Test("a target that does not read stops the source, and gets everything once it does")
  func backPressure() throws {
    let (a, b) = try pair(unix: false)
    _ = port.submit(.relay(to: b.key), on: a.key)
    let bytes = Self.pattern(30_000_000, 3)
    var sent = 0
    // Until neither the kernel's buffers nor the relay take more.
    while true {
      let count = bytes.withUnsafeBytes {
        Glibc.send(a.peer.descriptor, $0.baseAddress! + sent, min(65536, bytes.count - sent), CInt(MSG_DONTWAIT))
      }
      if count > 0 {
        sent += count
        continue
      }
      let moved = port.relayedBytes
      for _ in 0..<20 { #expect(port.dequeue(timeoutNanoseconds: 1_000_000).isEmpty) }
      if port.relayedBytes == moved { break }
    }
    #expect(sent < bytes.count, "nothing stopped the source")
    #expect(port.becomesQuiet())
    let all = sent
    let reader = Thread.start(name: "reader") {
      #expect(b.peer.receive(exactly: all) == Array(bytes[..<all]))
    }
    try run { port.relayedBytes(from: a.key) == UInt64(all) }
    reader.join()
  }

  @Test("a source that breaks is its own error, a target that breaks is the target's")
  func errors() throws {
    let (a, b) = try pair(unix: false)
    _ = port.submit(.relay(to: b.key), on: a.key)
    a.peer.reset()
    #expect(try port.next().error == .connectionReset)
    port.close(a.key)
    port.close(b.key)

    let (c, d) = try pair(unix: false)
    _ = port.submit(.relay(to: d.key), on: c.key)
    d.peer.reset()
    // Nobody reads the target, and still its end is noticed.
    let batch = try waitForRelay()
    #expect(batch.error == .connectionReset && batch.isOfTarget && batch.key == c.key)
    #expect(port.becomesQuiet())
  }

  private func waitForRelay() throws -> (key: HandleKey, error: Errno?, isOfTarget: Bool) {
    let end = CompletionPort.clock() + patienceNanoseconds
    while CompletionPort.clock() < end {
      for completion in port.dequeue(timeoutNanoseconds: 10_000_000) where completion.kind == .relay {
        return (completion.key, completion.error, completion.isOfTarget)
      }
    }
    throw Errno.timedOut
  }

  @Test("ending relays gives back what was read and not taken, and the sockets are ordinary again")
  func ending() throws {
    for bulk in [false, true] {
      let (a, b) = try pair(unix: false)
      _ = port.submit(.relay(to: b.key), on: a.key)
      let bytes = Self.pattern(20_000_000, 5)
      var sent = 0
      var last: UInt64 = .max
      while port.relayedBytes(from: a.key) != last {
        last = port.relayedBytes(from: a.key)
        // Pieces above one read make bulk, which goes through a pipe of the kernel.
        for _ in 0..<(bulk ? 30 : 1) {
          let count = bytes.withUnsafeBytes {
            Glibc.send(a.peer.descriptor, $0.baseAddress! + sent, bulk ? 65536 : 3000, CInt(MSG_DONTWAIT))
          }
          if count > 0 { sent += count }
        }
        for _ in 0..<10 { #expect(port.dequeue(timeoutNanoseconds: 1_000_000).isEmpty) }
      }
      var all = Int(port.relayedBytes(from: a.key))
      var held: [UInt8] = []
      port.endRelays(of: a.key) { key, bytes in
        #expect(key == b.key)
        held += Array(bytes)
      }
      #expect(Array(bytes[all..<all + held.count]) == held)
      all += held.count
      #expect(port.relayedBytes(from: a.key) == 0)
      // The rest is read as usual.
      while all < sent {
        _ = port.submit(.read, on: a.key)
        let rest = try port.next().bytes
        #expect(rest == Array(bytes[all..<all + rest.count]))
        all += rest.count
      }
      port.close(a.key)
      port.close(b.key)
    }
  }

  @Test("closing one socket ends the relay, and the other one can be read and relayed elsewhere")
  func closing() throws {
    let (a, b) = try pair(unix: false)
    _ = port.submit(.relay(to: b.key), on: a.key)
    _ = port.submit(.relay(to: a.key), on: b.key)
    port.close(a.key)
    _ = port.submit(.read, on: b.key)
    b.peer.send("hello")
    #expect(try port.next().text == "hello")
    let (c, _) = try pair(unix: false)
    #expect(port.submit(.relay(to: c.key), on: b.key) == .pending)
    b.peer.send("again")
    try run { port.relayedBytes(from: b.key) == 5 }
    #expect(c.peer.receive(exactly: 5) == Array("again".utf8))
    #expect(port.submit(.relay(to: a.key), on: a.key) == .failed(.badFileDescriptor))
  }

  @Test("relays that are over hold no descriptors beyond the pipes kept for all")
  func descriptors() throws {
    func count() -> Int {
      let folder = opendir("/proc/self/fd")!
      defer { closedir(folder) }
      var count = 0
      while readdir(folder) != nil { count += 1 }
      return count
    }
    func once() throws {
      let (a, b) = try pair(unix: false)
      _ = port.submit(.relay(to: b.key), on: a.key)
      let sender = Thread.start(name: "sender") {
        a.peer.send(Self.pattern(1_000_000, 1))
        a.peer.shutdownWrite()
      }
      let receiver = Thread.start(name: "receiver") { #expect(b.peer.receive(exactly: 1_000_000).count == 1_000_000) }
      #expect(try port.next().error == nil)
      sender.join()
      receiver.join()
      port.close(a.key)
      port.close(b.key)
    }
    try once()
    let before = count()
    for _ in 0..<20 { try once() }
    // Other tests of this process open and close descriptors, too.
    #expect(eventually { count() <= before + 2 })
  }
}

/// Results of several threads.
private final class Results: @unchecked Sendable {
  private let lock = ThreadLock()
  private var values = [false, false]

  func set(_ place: Int, _ value: Bool) { lock.withLock { values[place] = value } }

  var all: [Bool] { lock.withLock { values } }
}
