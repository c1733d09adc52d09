// Messages for connections of other workers, gathered and laid out as data.

import CompletionIO
import TestSupport
import Testing

@testable import ScriptServer

private struct Sent: Equatable {
  var id: Int64
  var bytes: [UInt8]
  var framed: Bool
}

extension SendPacket {
  fileprivate func messages() -> [Sent] {
    var all: [Sent] = []
    forEachMessage { all.append(Sent(id: $0.rawValue, bytes: Array($1), framed: $2)) }
    return all
  }
}

@Suite struct GatheredSendsTests {
  @Test(.seeded) func `a packet has the messages in their order, each with its connection and its kind`() {
    var random = SeededGenerator()
    var gathered = GatheredSends()
    for _ in 0..<20 {
      var expected: [Sent] = []
      while !gathered.isFull && expected.count < 200 {
        let sent = Sent(
          id: Int64.random(in: 1...Int64.max, using: &random),
          bytes: random.bytes(Int.random(in: 0...600, using: &random)),
          framed: Bool.random(using: &random))
        sent.bytes.withUnsafeBytes { gathered.append($0, to: ConnectionID(rawValue: sent.id), framed: sent.framed) }
        expected.append(sent)
        let count = gathered.count
        #expect(count == expected.count)
      }
      let packet = gathered.takePacket()
      let isEmpty = gathered.isEmpty
      #expect(isEmpty && packet.count == expected.count)
      #expect(packet.messages() == expected)
    }
  }

  @Test func `a packet goes when it has many messages or many bytes`() {
    let id = ConnectionID(rawValue: 77)
    var gathered = GatheredSends()
    for _ in 0..<255 { [UInt8]().withUnsafeBytes { gathered.append($0, to: id, framed: true) } }
    let isFullBefore = gathered.isFull
    #expect(!isFullBefore)
    [UInt8]().withUnsafeBytes { gathered.append($0, to: id, framed: true) }
    let isFull = gathered.isFull
    let packet = gathered.takePacket()
    #expect(isFull && packet.count == 256)
    let large = [UInt8](repeating: 1, count: 4000)
    var count = 0
    while !gathered.isFull {
      large.withUnsafeBytes { gathered.append($0, to: id, framed: false) }
      count += 1
    }
    #expect(count == 17)
  }

  @Test func `what is gathered for several workers is taken in the order of their first messages`() {
    var sends = SendsToOthers(workerCount: 4)
    let ids = [3, 1, 3, 0, 1].map { ConnectionID(worker: $0, key: HandleKey(slot: 5, generation: 9)) }
    for id in ids {
      "x".utf8.withContiguousStorageIfAvailable { _ = sends.append(UnsafeRawBufferPointer($0), to: id, framed: true) }
    }
    let empty = [sends.isEmpty, sends.isEmpty(for: 3), sends.isEmpty(for: 2)]
    #expect(empty == [false, false, true])
    var taken: [[Int]] = []
    sends.takeAll { taken.append([$0, $1.count]) }
    #expect(taken == [[3, 2], [1, 2], [0, 1]])
    let isEmptyAfter = sends.isEmpty && sends.isEmpty(for: 3)
    #expect(isEmptyAfter)
    sends.takeAll { _, _ in Issue.record("taken twice") }
  }
}
