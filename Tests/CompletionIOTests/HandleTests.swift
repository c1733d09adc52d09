import CompletionIO
import Glibc
import SystemPackage
import Testing

@Suite("Handles")
struct HandleTests {
  @Test("slots are dense from 0, generations start at 1, and a freed slot comes back with the next generation")
  func slots() {
    var table = HandleTable()
    let keys = (0..<300).map { table.insert(CInt($0), kind: .socket) }
    #expect(keys.map(\.slot) == (0..<300).map(UInt32.init))
    #expect(keys.allSatisfy { $0.generation == 1 })
    table.remove(keys[17])
    table.remove(keys[5])
    #expect(!table.contains(keys[17]) && table.contains(keys[18]))
    let reused = [table.insert(1000, kind: .file), table.insert(1001, kind: .file), table.insert(1002, kind: .file)]
    #expect(reused.map(\.slot) == [5, 17, 300])
    #expect(reused.map(\.generation) == [2, 2, 1])
    #expect(!table.contains(keys[5]) && table.contains(reused[0]))
  }

  @Test("a slot whose generations are used up is never issued again")
  func retired() {
    var table = HandleTable(firstGeneration: .max - 1)
    let first = table.insert(1, kind: .socket)
    table.remove(first)
    let last = table.insert(1, kind: .socket)
    #expect(last.slot == first.slot && last.generation == .max)
    table.remove(last)
    let next = table.insert(1, kind: .socket)
    #expect(next.slot == 1)
    #expect(!table.contains(first) && !table.contains(last) && !table.contains(.none))
  }

  @Test("a key survives its 64 bits, and the key that is never issued is no handle")
  func keys() throws {
    let key = HandleKey(rawValue: 0x0000_0007_0000_0003)
    #expect(key.slot == 3 && key.generation == 7 && HandleKey(rawValue: key.rawValue) == key)
    #expect(HandleKey.none.generation == 0)
    let port = try CompletionPort()
    #expect(!port.isCurrent(.none))
    _ = try socketPair(on: port)
    #expect(!port.isCurrent(.none))
    #expect(!port.isCurrent(HandleKey(rawValue: .max)))
  }

  @Test("every method on a key whose handle is closed does nothing, also when its slot and descriptor are in use again")
  func stale() throws {
    let port = try CompletionPort()
    let (old, oldPeer) = try socketPair(on: port)
    let number = port.descriptor(of: old)
    port.close(old)
    let (new, peer) = try socketPair(on: port)
    #expect(new.slot == old.slot && new != old && port.descriptor(of: new) == number)
    #expect(!port.isCurrent(old) && port.isCurrent(new) && port.descriptor(of: old) == nil)
    #expect(port.submit(.read, on: old) == .failed(.badFileDescriptor))
    #expect(port.submit(.accept, on: old) == .failed(.badFileDescriptor))
    port.cancelRead(old)
    port.shutdownWrite(old)
    port.reset(old)
    port.close(old)
    switch port.dissociate(old) {
    case .none: break
    case .some(let descriptor):
      descriptor.close()
      Issue.record("a stale key gave a descriptor")
    }
    _ = port.submit(.read, on: new)
    peer.send("alive")
    #expect(try port.next().text == "alive")
    withExtendedLifetime(oldPeer) {}
  }

  @Test("a completion of a handle closed earlier in the batch is recognised, though its descriptor number is reused")
  func reuseInOneBatch() throws {
    let port = try CompletionPort()
    let (first, firstPeer) = try socketPair(on: port)
    let (second, secondPeer) = try socketPair(on: port)
    for key in [first, second] { _ = port.submit(.read, on: key) }
    firstPeer.send("1")
    secondPeer.send("2")
    let batch = port.dequeue(timeoutNanoseconds: -1)
    #expect(batch.count == 2)
    let victim = batch[0].key == first ? second : first
    let number = port.descriptor(of: victim)
    port.close(victim)
    let (newcomer, _) = try socketPair(on: port)
    #expect(port.descriptor(of: newcomer) == number && newcomer.slot == victim.slot)
    #expect(port.isCurrent(batch[0].key) && !port.isCurrent(batch[1].key) && port.isCurrent(newcomer))
  }

  @Test("events that waited for room in the batch are dropped when their handle was closed meanwhile")
  func staleEvents() throws {
    let port = try CompletionPort(readBufferBytes: 16384)
    var pairs: [(key: HandleKey, peer: Peer)] = []
    for _ in 0..<6 {
      let pair = try socketPair(on: port)
      _ = port.submit(.read, on: pair.key)
      pair.peer.send("x")
      pairs.append(pair)
    }
    // The buffer holds one read, so five events wait.
    let first = port.poll()
    #expect(first.count == 1)
    for pair in pairs { port.close(pair.key) }
    let (newcomer, peer) = try socketPair(on: port)
    _ = port.submit(.read, on: newcomer)
    peer.send("new")
    let seen = try port.next()
    #expect(seen.key == newcomer && seen.text == "new")
    #expect(port.becomesQuiet())
  }

  @Test("a dissociated descriptor works on another port and no longer on the first")
  func dissociate() throws {
    let first = try CompletionPort()
    let second = try CompletionPort()
    let (key, peer) = try loopback(on: first)
    _ = first.submit(.read, on: key)
    guard let descriptor = first.dissociate(key) else {
      Issue.record("the handle was open")
      return
    }
    let moved = try second.associate(descriptor, as: .socket)
    _ = second.submit(.read, on: moved)
    peer.send("moved")
    #expect(try second.next().text == "moved")
    #expect(first.becomesQuiet())
  }

  @Test("a copy of a closed handle's descriptor brings no more events")
  func copies() throws {
    let port = try CompletionPort()
    let (key, peer) = try socketPair(on: port)
    let copy = Peer(dup(port.descriptor(of: key)!))
    _ = port.submit(.read, on: key)
    port.close(key)
    peer.send("for the copy")
    #expect(port.becomesQuiet())
    #expect(copy.receive() == Array("for the copy".utf8))
  }

  @Test("a port that ends closes the descriptors it still has")
  func portEnds() throws {
    var port: CompletionPort? = try CompletionPort()
    let (_, peer) = try loopback(on: port!)
    port = nil
    #expect(peer.receive() == [])
  }

  @Test("a descriptor that is dropped without close or take traps")
  func leak() async {
    await #expect(processExitsWith: .failure) {
      let descriptor = Descriptor(adopting: dup(0))
      _ = descriptor.rawValue
    }
  }

  @Test("a descriptor closes once, and take gives the number away open")
  func descriptor() {
    let number = dup(0)
    let taken = Descriptor(adopting: number).take()
    #expect(taken == number && fcntl(number, F_GETFD) >= 0)
    Descriptor(adopting: taken).close()
  }
}
