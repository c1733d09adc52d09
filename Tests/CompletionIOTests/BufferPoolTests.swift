import CompletionIO
import Testing

@Suite("Buffer pool")
struct BufferPoolTests {
  @Test("a buffer has the smallest class's size that suffices, and exactly its own above the largest")
  func sizes() {
    var pool = BufferPool()
    let expected = [
      (0, 512), (1, 512), (512, 512), (513, 1024), (1024, 1024), (1025, 2048), (5000, 8192), (65535, 65536),
      (65536, 65536), (65537, 65537), (1_000_000, 1_000_000),
    ]
    for (bytes, size) in expected {
      let buffer = pool.take(minimumBytes: bytes)
      #expect(buffer.count == size)
      buffer.initializeMemory(as: UInt8.self, repeating: 0xAA)
      pool.give(buffer)
    }
    #expect(pool.takenCount == 0)
  }

  @Test("a buffer that was given back is taken again, without an allocation")
  func reuse() {
    var pool = BufferPool()
    let first = pool.take(minimumBytes: 700)
    pool.give(first)
    #expect(pool.keptBytes == 1024)
    for _ in 0..<1000 {
      let again = pool.take(minimumBytes: 1000)
      #expect(again.baseAddress == first.baseAddress)
      pool.give(again)
    }
    #expect(pool.allocationCount == 1)
  }

  @Test("buffers taken at the same time never overlap")
  func distinct() {
    var pool = BufferPool()
    var buffers: [UnsafeMutableRawBufferPointer] = []
    for index in 0..<2000 {
      let buffer = pool.take(minimumBytes: Int.random(in: 1...70_000))
      buffer.storeBytes(of: index, as: Int.self)
      buffers.append(buffer)
      if index % 3 == 2 {
        let victim = Int.random(in: 0..<buffers.count)
        pool.give(buffers.remove(at: victim))
      }
    }
    #expect(Set(buffers.map { $0.load(as: Int.self) }).count == buffers.count)
    #expect(pool.takenCount == buffers.count)
    for buffer in buffers { pool.give(buffer) }
  }

  @Test("what is kept stays under its bound")
  func bound() {
    var pool = BufferPool()
    let buffers = (0..<200).map { _ in pool.take(minimumBytes: 65536) }
    for buffer in buffers { pool.give(buffer) }
    #expect(pool.keptBytes <= BufferPool.keptBytesMax && pool.keptBytes > BufferPool.keptBytesMax - 65537)
    #expect(pool.takenCount == 0)
  }

  @Test("a drained pool keeps nothing, and what is taken stays the taker's")
  func drain() {
    var pool = BufferPool()
    let taken = pool.take(minimumBytes: 600)
    taken.initializeMemory(as: UInt8.self, repeating: 0x5A)
    for bytes in [1, 1000, 1000, 65536] { pool.give(pool.take(minimumBytes: bytes)) }
    #expect(pool.keptBytes == 512 + 1024 + 65536)
    pool.drain()
    #expect(pool.keptBytes == 0)
    #expect(pool.takenCount == 1)
    let other = pool.take(minimumBytes: 600)
    other.initializeMemory(as: UInt8.self, repeating: 0xA5)
    #expect(taken.allSatisfy { $0 == 0x5A })
    pool.give(taken)
    pool.give(other)
    #expect(pool.keptBytes == 2048)
  }
}
