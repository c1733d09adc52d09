import Codecs
import Testing

struct InboundBufferTests {
  @Test func `an empty buffer is three words and owns nothing`() {
    let buffer = InboundBuffer()
    #expect(MemoryLayout<InboundBuffer>.size <= 24)
    #expect(buffer.isEmpty == true)
    #expect(buffer.capacity == 0)
    #expect(buffer.count == 0)
    #expect(buffer.bytes.isEmpty)
  }

  @Test func `bytes come out as they went in`() {
    var buffer = InboundBuffer()
    buffer.add([1, 2, 3], limit: 100)
    buffer.add([4], limit: 100)
    buffer.consume(2)
    buffer.add([5, 6], limit: 100)
    let held = Array(buffer.bytes)
    #expect(held == [3, 4, 5, 6])
    #expect(buffer.count == 4)
  }

  @Test func `consuming the last byte gives the memory back`() {
    var buffer = InboundBuffer()
    buffer.add([1, 2, 3], limit: 100)
    #expect(buffer.capacity > 0)
    buffer.consume(1)
    #expect(buffer.capacity > 0)
    buffer.consume(2)
    #expect(buffer.isEmpty == true)
    #expect(buffer.capacity == 0)
  }

  @Test func `release drops everything, also twice, and the buffer can be used again`() {
    var buffer = InboundBuffer()
    buffer.add([1, 2, 3], limit: 100)
    buffer.release()
    buffer.release()
    #expect(buffer.isEmpty == true)
    buffer.add([9], limit: 100)
    let held = Array(buffer.bytes)
    #expect(held == [9])
  }

  @Test func `appending nothing allocates nothing`() {
    var buffer = InboundBuffer()
    buffer.add([], limit: 100)
    #expect(buffer.capacity == 0)
  }

  @Test func `memory grows by doubling up to the limit and no further`() {
    var buffer = InboundBuffer()
    var capacities: [Int] = []
    for byte in 0..<1000 {
      buffer.add([UInt8(truncatingIfNeeded: byte)], limit: 1000)
      if capacities.last != buffer.capacity { capacities.append(buffer.capacity) }
    }
    #expect(capacities == [64, 128, 256, 512, 1000])
  }

  @Test func `the first block is no greater than the limit`() {
    var buffer = InboundBuffer()
    buffer.add([1, 2], limit: 3)
    #expect(buffer.capacity == 3)
  }

  @Test func `bytes beyond the limit are kept, without memory to spare`() {
    var buffer = InboundBuffer()
    buffer.add([UInt8](repeating: 1, count: 70), limit: 64)
    #expect(buffer.capacity == 70)
    buffer.add([2], limit: 64)
    #expect(buffer.capacity == 71)
    #expect(buffer.count == 71)
  }

  @Test func `what was consumed makes room again without new memory`() {
    var buffer = InboundBuffer()
    buffer.add([UInt8](repeating: 1, count: 64), limit: 64)
    for round in 0..<10_000 {
      buffer.consume(40)
      buffer.add([UInt8](repeating: UInt8(truncatingIfNeeded: round), count: 40), limit: 64)
      #expect(buffer.capacity == 64)
    }
    #expect(buffer.count == 64)
  }

  @Test func `bytes move to the front only after as many were consumed, otherwise memory doubles`() {
    var earned = InboundBuffer()
    earned.add([UInt8](repeating: 1, count: 64), limit: 1000)
    earned.consume(32)
    earned.add([UInt8](repeating: 2, count: 32), limit: 1000)
    #expect(earned.capacity == 64)
    var unearned = InboundBuffer()
    unearned.add([UInt8](repeating: 1, count: 64), limit: 1000)
    unearned.consume(31)
    unearned.add([UInt8](repeating: 2, count: 31), limit: 1000)
    #expect(unearned.capacity == 128)
  }

  @Test func `more bytes than can be counted are refused and nothing is added`() {
    var buffer = InboundBuffer()
    buffer.add([1, 2], limit: 100)
    var byte: UInt8 = 0
    let appended = withUnsafePointer(to: &byte) { pointer in
      buffer.append(UnsafeRawBufferPointer(start: pointer, count: Int(UInt32.max) - 1), limit: .max)
    }
    #expect(appended == false)
    let held = Array(buffer.bytes)
    #expect(held == [1, 2])
  }

  @Test func `a model and the buffer agree over random operations`() {
    let seed = UInt64.random(in: .min ... .max)
    var random = SeededRandom(seed: seed)
    for _ in 0..<300 {
      let limit = Int.random(in: 1...2000, using: &random)
      var buffer = InboundBuffer()
      var model: [UInt8] = []
      for _ in 0..<100 {
        let added = random.bytes(
          Int.random(in: 0...min(limit - model.count, 300), using: &random), from: Array(0...255))
        buffer.add(added, limit: limit)
        model += added
        let consumed = random.once(in: 10) ? model.count : Int.random(in: 0...model.count, using: &random)
        buffer.consume(consumed)
        model.removeFirst(consumed)
        let agrees = buffer.bytes.elementsEqual(model) && buffer.count == model.count
        #expect(agrees, "seed \(seed)")
        #expect(buffer.capacity <= limit, "seed \(seed)")
        #expect(buffer.isEmpty == (buffer.capacity == 0), "seed \(seed)")
      }
    }
  }
}

extension InboundBuffer {
  fileprivate mutating func add(_ bytes: [UInt8], limit: Int) {
    let appended = bytes.withUnsafeBytes { append($0, limit: limit) }
    #expect(appended)
  }
}
