import CompletionIO
import Glibc
import SystemPackage
import Testing

@Suite("Accepting")
struct AcceptTests {
  @Test("every connection is one completion with a non-blocking descriptor that exec closes and Nagle does not delay")
  func accepts() throws {
    let port = try CompletionPort()
    let (key, address) = try listen(port)
    let peers = try (0..<5).map { _ in try Peer(to: address) }
    let seen = try port.take(5)
    for one in seen {
      #expect(one.kind == .accept && one.key == key && one.error == nil)
      let descriptor = CInt(one.count)
      #expect(fcntl(descriptor, F_GETFL) & O_NONBLOCK != 0 && fcntl(descriptor, F_GETFD) & FD_CLOEXEC != 0)
      var noDelay: CInt = 0
      var length = socklen_t(4)
      getsockopt(descriptor, CInt(IPPROTO_TCP), TCP_NODELAY, &noDelay, &length)
      #expect(noDelay != 0)
      #expect(try SocketAddress.peer(of: descriptor).host == "127.0.0.1")
      Descriptor(adopting: descriptor).close()
    }
    withExtendedLifetime(peers) {}
  }

  @Test("a burst is accepted in several batches, and the connected clients get their turn between them")
  func bounded() throws {
    let port = try CompletionPort()
    let (_, address) = try listen(port)
    let peers = try (0..<150).map { _ in try Peer(to: address) }
    var accepted = 0
    while accepted < 150 {
      let batch = try port.take(1)
      #expect(batch.count <= 64)
      for one in batch { Descriptor(adopting: CInt(one.count)).close() }
      accepted += batch.count
    }
    withExtendedLifetime(peers) {}
  }

  @Test("a connection that was reset before it was accepted does not end accepting")
  func resetBeforeAccept() throws {
    let port = try CompletionPort()
    let (_, address) = try listen(port)
    for _ in 0..<20 { try Peer(to: address).reset() }
    let good = try Peer(to: address)
    good.send("good")
    var greeted = false
    while !greeted {
      for one in try port.take(1) {
        if one.kind == .accept, one.error == nil {
          let key = try port.associate(Descriptor(adopting: CInt(one.count)), as: .socket)
          _ = port.submit(.read, on: key)
        } else if one.kind == .read {
          if one.text == "good" { greeted = true }
          port.close(one.key)
        }
      }
    }
    #expect(greeted)
  }

  @Test("accepting ends with cancelRead and begins again with the next submit")
  func cancel() throws {
    let port = try CompletionPort()
    let (key, address) = try listen(port)
    port.cancelRead(key)
    let peer = try Peer(to: address)
    #expect(port.becomesQuiet())
    _ = port.submit(.accept, on: key)
    Descriptor(adopting: CInt(try port.next().count)).close()
    withExtendedLifetime(peer) {}
  }

  @Test("without free descriptors the listener says so once, rests without spinning, and accepts when one is closed")
  func exhaustion() async {
    // _exit, so that what the test runner itself holds at that moment does not count as leaked.
    await #expect(processExitsWith: .success) {
      let port = try CompletionPort()
      let (listener, address) = try listen(port)
      let (spare, sparePeer) = try socketPair(on: port)
      let waiting = try (0..<20).map { _ in try Peer(to: address) }
      var limit = rlimit()
      getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
      limit.rlim_cur = 100
      guard setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { _exit(2) }
      while dup(0) >= 0 {}

      let full = try port.next()
      guard full.kind == .accept, full.key == listener, full.error == .tooManyOpenFiles else { _exit(3) }
      // At rest it is quiet, which a polled listener with waiting connections would not be.
      guard port.becomesQuiet() else { _exit(4) }
      port.close(spare)
      let accepted = port.poll()
      guard tookWhatIsFree(accepted) else { _exit(5) }

      // A descriptor that another thread closes is told by retryAccepts.
      close(CInt(accepted[0].count))
      port.retryAccepts()
      let again = port.poll()
      guard tookWhatIsFree(again) else { _exit(6) }

      // And without being told it is tried again after a second.
      close(CInt(again[0].count))
      let before = port.now
      guard tookWhatIsFree(try port.take()) else { _exit(7) }
      guard port.now - before >= 1_000_000_000 else { _exit(8) }
      withExtendedLifetime((waiting, sparePeer)) {}
      _exit(0)
    }
  }

  @Test("two ports that share one listening socket accept every connection exactly once")
  func shared() throws {
    let first = try CompletionPort()
    let second = try CompletionPort()
    let (key, address) = try listen(first)
    let copy = try second.associate(Descriptor(adopting: dup(first.descriptor(of: key)!)), as: .listener)
    _ = second.submit(.accept, on: copy)
    let peers = try (0..<50).map { _ in try Peer(to: address) }
    var accepted = 0
    let all = eventually {
      for one in first.poll() + second.poll() where one.kind == .accept {
        #expect(one.error == nil)
        Descriptor(adopting: CInt(one.count)).close()
        accepted += 1
      }
      return accepted == 50
    }
    #expect(all)
    withExtendedLifetime(peers) {}
  }
}

/// Whether somebody was accepted, and then no descriptor was left. It is one client, but for a descriptor that the test runner's own
/// threads may have closed meanwhile.
private func tookWhatIsFree(_ accepted: [Seen]) -> Bool {
  accepted.count >= 2 && accepted.last?.error == .tooManyOpenFiles && accepted.dropLast().allSatisfy { $0.error == nil }
}
