import CompletionIO
import Glibc
import TestSupport
import Testing

@testable import ScriptServer

/// A send queue beside what it should hold: the waiting bytes, cut where whole messages that may be dropped begin and end.
private final class ModelledQueue {
  var queue = SendQueue()
  let pool = UnsafeMutablePointer<BufferPool>.allocate(capacity: 1)
  /// One entry per message of its own chunk, and one per run of others.
  var pieces: [(bytes: [UInt8], isOneMessage: Bool, isBegun: Bool)] = []
  private var nextByte: UInt8 = 0

  init() { pool.initialize(to: BufferPool()) }

  deinit {
    queue.clear(pool: pool)
    pool.deinitialize(count: 1)
    pool.deallocate()
  }

  var bytes: [UInt8] { pieces.flatMap(\.bytes) }

  private func payload(_ count: Int) -> [UInt8] {
    (0..<count).map { _ in
      nextByte &+= 1
      return nextByte
    }
  }

  func reserve(_ count: Int, whole: Bool) {
    let bytes = payload(count)
    let room = whole ? queue.reserveWhole(count, pool: pool) : queue.reserve(count, pool: pool)
    bytes.withUnsafeBytes { if $0.count > 0 { room.copyMemory(from: $0.baseAddress!, byteCount: $0.count) } }
    pieces.append((bytes, whole, false))
  }

  func share(_ count: Int) {
    let bytes = payload(count)
    queue.append(bytes.withUnsafeBytes { SharedBytes(copying: $0) }, pool: pool)
    pieces.append((bytes, true, false))
  }

  func advance(_ count: Int) {
    queue.advance(count, pool: pool)
    var left = count
    while left > 0 {
      let taken = min(left, pieces[0].bytes.count)
      pieces[0].bytes.removeFirst(taken)
      pieces[0].isBegun = true
      left -= taken
      if pieces[0].bytes.isEmpty { pieces.removeFirst() }
    }
  }

  /// The bytes that `gather` shows, at most `limit` pieces.
  func gathered(_ limit: Int = SendQueue.gatherMax) -> [UInt8] {
    let vectors = UnsafeMutablePointer<iovec>.allocate(capacity: SendQueue.gatherMax)
    defer { vectors.deallocate() }
    let count = queue.gather(into: vectors, limit: limit)
    #expect(count <= limit)
    return (0..<count).flatMap {
      Array(UnsafeRawBufferPointer(start: vectors[$0].iov_base, count: vectors[$0].iov_len))
    }
  }
}

@Suite("A send queue")
struct SendQueueTests {
  @Test("random operations hold what a byte array would, and give every buffer back", .seeded)
  func model() {
    var random = SeededGenerator()
    for _ in 0..<5 {
      let model = ModelledQueue()
      for step in 0..<300 {
        switch Int.random(in: 0..<10, using: &random) {
        case 0..<4: model.reserve(size(&random), whole: false)
        case 4: model.reserve(size(&random), whole: true)
        case 5: model.share(max(size(&random), 1))
        case 6..<9: model.advance(Int.random(in: 0...min(model.queue.count, 70000), using: &random))
        default:
          if Int.random(in: 0..<20, using: &random) == 0 {
            model.queue.clear(pool: model.pool)
            model.pieces = []
          }
        }
        let count = model.pieces.reduce(0) { $0 + $1.bytes.count }
        #expect(model.queue.count == count && model.queue.isEmpty == (count == 0))
        if step % 8 > 0 { continue }
        let limit = Int.random(in: 1...SendQueue.gatherMax, using: &random)
        let gathered = model.gathered(limit)
        #expect(gathered.elementsEqual(model.bytes.prefix(gathered.count)))
        #expect(model.bytes.isEmpty || !gathered.isEmpty)
      }
      model.advance(model.queue.count)
      #expect(model.queue.isEmpty)
      model.queue.clear(pool: model.pool)
      #expect(model.pool.pointee.takenCount == 0)
    }
  }

  private func size(_ random: inout SeededGenerator) -> Int {
    switch Int.random(in: 0..<8, using: &random) {
    case 0: 1
    case 1: Int.random(in: 900..<1100, using: &random)
    case 2: Int.random(in: 1..<20, using: &random) == 1 ? 70000 : Int.random(in: 3000..<6000, using: &random)
    default: Int.random(in: 1..<200, using: &random)
    }
  }

  @Test(
    "dropping the oldest takes whole messages that have not begun, in order, and only as many as needed", .seeded,
    arguments: [false, true])
  func dropping(_ keepFirst: Bool) {
    var random = SeededGenerator()
    for _ in 0..<300 {
      let model = ModelledQueue()
      for _ in 0..<Int.random(in: 0..<12, using: &random) {
        if Bool.random(using: &random) {
          model.share(Int.random(in: 1..<300, using: &random))
        } else {
          model.reserve(Int.random(in: 1..<300, using: &random), whole: true)
        }
      }
      model.advance(Int.random(in: 0...min(model.queue.count, 400), using: &random))
      let wanted = Int.random(in: 0..<1500, using: &random)
      var freed = 0
      var expected = 0
      var index = keepFirst && !model.pieces.isEmpty ? 1 : 0
      while freed < wanted, index < model.pieces.count {
        if model.pieces[index].isBegun {
          index += 1
          continue
        }
        freed += model.pieces.remove(at: index).bytes.count
        expected += 1
      }
      #expect(model.queue.dropOldest(until: wanted, keepFirst: keepFirst, pool: model.pool) == expected)
      #expect(model.queue.count == model.bytes.count)
      #expect(model.gathered() == model.bytes)
      // It goes on as a queue: what is added stands behind what is left.
      model.reserve(10, whole: false)
      model.share(10)
      #expect(model.gathered().elementsEqual(model.bytes))
      model.advance(model.queue.count)
      #expect(model.pool.pointee.takenCount == 0)
    }
  }

  @Test("bytes that are no whole message are never dropped")
  func keepsStreams() {
    let model = ModelledQueue()
    model.reserve(100, whole: false)
    model.share(50)
    model.reserve(100, whole: false)
    model.pieces.remove(at: 1)
    #expect(model.queue.dropOldest(until: 1000, keepFirst: false, pool: model.pool) == 1)
    #expect(model.gathered() == model.bytes)
  }

  @Test("as many messages go as are told, however few bytes they have")
  func dropsByNumber() {
    let model = ModelledQueue()
    for _ in 0..<10 { model.reserve(1, whole: true) }
    #expect(model.queue.chunkCount == 10)
    #expect(model.queue.dropOldest(until: 2, messages: 4, keepFirst: true, pool: model.pool) == 4)
    #expect(model.queue.chunkCount == 6 && model.queue.count == 6)
    #expect(model.queue.dropOldest(until: 0, messages: -3, keepFirst: false, pool: model.pool) == 0)
    #expect(model.queue.dropOldest(until: 0, messages: 99, keepFirst: true, pool: model.pool) == 5)
    model.queue.clear(pool: model.pool)
    #expect(model.queue.chunkCount == 0)
  }

  @Test("what stands between shared bytes takes small chunks, however much is queued")
  func smallBetweenShared() {
    let model = ModelledQueue()
    for _ in 0..<100 {
      model.share(4096)
      model.reserve(1, whole: false)
    }
    #expect(model.queue.chunkCount == 200)
    #expect(model.gathered(1).count == 4096 && model.pool.pointee.keptBytes == 0)
    model.queue.clear(pool: model.pool)
    #expect(model.pool.pointee.keptBytes <= 100 * (4096 + 512))
  }

  @Test("small messages share a chunk, so that they leave in one piece")
  func coalesces() {
    let model = ModelledQueue()
    for _ in 0..<10 { model.reserve(20, whole: false) }
    #expect(model.gathered(1).count == 200)
    #expect(model.pool.pointee.takenCount == 1)
  }

  @Test("chunks grow with the queue up to 64 KiB, so that much in small messages takes few of them")
  func growth() {
    let model = ModelledQueue()
    var chunks: [Int] = []
    while model.queue.count < 300_000 {
      model.reserve(100, whole: false)
      let taken = model.pool.pointee.takenCount
      if taken > chunks.count { chunks.append(model.queue.count) }
    }
    // 4 KiB, 8, 16 and so on: how much is queued about doubles until each further chunk has 64 KiB.
    #expect(chunks.prefix(4).enumerated().allSatisfy { $1 <= 4096 << $0 })
    #expect(chunks.count <= 10)
    #expect(model.gathered() == model.bytes)
  }

  @Test("a message that a chunk's rest does not hold stays in one piece, and later ones do not fill the gap before it")
  func pieces() {
    let model = ModelledQueue()
    model.reserve(3000, whole: false)
    model.reserve(2000, whole: false)
    #expect(model.gathered(1).count == 3000)
    model.reserve(50, whole: false)
    #expect(model.gathered(1).count == 3000 && model.gathered() == model.bytes)
    model.reserve(200_000, whole: false)
    model.reserve(1, whole: false)
    #expect(model.gathered() == model.bytes)
  }

  @Test("nothing is copied behind shared bytes or a message that may be dropped")
  func closedChunks() {
    let model = ModelledQueue()
    model.share(10)
    model.reserve(10, whole: false)
    model.reserve(10, whole: true)
    model.reserve(10, whole: false)
    #expect(model.gathered(1).count == 10 && model.gathered(2).count == 20 && model.gathered(3).count == 30)
    #expect(model.queue.dropOldest(until: 1000, keepFirst: false, pool: model.pool) == 2)
    #expect(model.queue.count == 20 && model.gathered() == Array(model.bytes[10..<20] + model.bytes[30...]))
  }

  @Test("shared bytes live as long as the last queue that sends them")
  func sharedBytes() {
    let first = ModelledQueue()
    let second = ModelledQueue()
    weak var observed: SharedBytes?
    do {
      let shared = Array("shared".utf8).withUnsafeBytes { SharedBytes(copying: $0) }
      observed = shared
      first.queue.append(shared, pool: first.pool)
      second.queue.append(shared, pool: second.pool)
    }
    first.queue.advance(6, pool: first.pool)
    #expect(observed != nil)
    #expect(second.gathered() == Array("shared".utf8))
    second.queue.clear(pool: second.pool)
    #expect(observed == nil)
  }
}
