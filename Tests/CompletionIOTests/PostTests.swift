import CompletionIO
import Glibc
import Synchronization
import Testing

@Suite("Posted packets")
struct PostTests {
  @Test("a packet posted by the owner comes with the next batch, whatever the timeout")
  func own() throws {
    let port = try CompletionPort()
    port.post(Packet(key: 7, value: .max))
    let batch = port.dequeue(timeoutNanoseconds: -1)
    #expect(batch.count == 1 && batch[0].kind == .packet && batch[0].packet == Packet(key: 7, value: .max))
    #expect(batch[0].key == .none && batch[0].error == nil && batch[0].bytes.isEmpty)
  }

  @Test("a packet ends the owner's sleep")
  func wakes() throws {
    let port = try CompletionPort()
    for round in UInt64(0)..<200 {
      let thread = Thread.start(name: "poster") { port.post(Packet(key: round, value: 0)) }
      #expect(try port.next().packet?.key == round)
      thread.join()
    }
  }

  @Test("packets of many threads all arrive, each thread's in order, while sockets go on")
  func manyThreads() throws {
    let port = try CompletionPort()
    let threadCount = 8
    let perThread: UInt64 = 20_000
    let threads = (0..<threadCount).map { index in
      Thread.start(name: "poster \(index)") {
        for value in 0..<perThread { port.post(Packet(key: UInt64(index), value: value)) }
      }
    }
    let (key, peer) = try socketPair(on: port)
    _ = port.submit(.read, on: key)
    peer.send("x")
    var expected = [UInt64](repeating: 0, count: threadCount)
    var left = threadCount * Int(perThread) + 1
    while left > 0 {
      for seen in try port.take(1) {
        left -= 1
        guard let packet = seen.packet else { continue }
        #expect(packet.value == expected[Int(packet.key)])
        expected[Int(packet.key)] += 1
      }
    }
    for thread in threads { thread.join() }
    #expect(port.poll().isEmpty)
  }

  @Test("two ports that answer each other's packets never sleep through one")
  func pingPong() throws {
    let left = try CompletionPort()
    let right = try CompletionPort()
    let rounds: UInt64 = 20_000
    let thread = Thread.start(name: "right") {
      var answered: UInt64 = 0
      while answered < rounds {
        let batch = right.dequeue(timeoutNanoseconds: -1)
        for index in 0..<batch.count {
          left.post(batch[index].packet)
          answered += 1
        }
      }
    }
    for round in 0..<rounds {
      right.post(Packet(key: 0, value: round))
      #expect(try left.next().packet?.value == round)
    }
    thread.join()
  }

  @Test("a batch of packets is bounded, and the rest comes with the next batches without a wait")
  func bounded() throws {
    let port = try CompletionPort()
    for value in UInt64(0)..<10_000 { port.post(Packet(key: 1, value: value)) }
    var values: [UInt64] = []
    while values.count < 10_000 {
      let batch = port.dequeue(timeoutNanoseconds: -1)
      #expect(batch.count > 0 && batch.count <= 256)
      values += batch.map(\.packet.value)
    }
    #expect(values == Array(0..<10_000))
  }

  @Test("a wait without events ends when its time is up, not before")
  func timeout() throws {
    let port = try CompletionPort()
    let before = CompletionPort.clock()
    var batch = port.dequeue(timeoutNanoseconds: 3_300_000)
    while batch.isEmpty && CompletionPort.clock() < before + 3_300_000 {
      batch = port.dequeue(timeoutNanoseconds: Int64(before) + 3_300_000 - Int64(CompletionPort.clock()))
    }
    #expect(batch.isEmpty)
    #expect(port.now >= before + 3_300_000 && port.now <= CompletionPort.clock())
  }
}
