import CompletionIO
import Glibc
import SystemPackage
import Testing

@Suite("Writes")
struct WriteTests {
  let port: CompletionPort

  init() throws { port = try CompletionPort() }

  @Test("a write that the kernel takes is done at once and has no completion")
  func synchronous() throws {
    let (key, peer) = try loopback(on: port)
    let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: 3, alignment: 1)
    defer { bytes.deallocate() }
    bytes.copyBytes(from: "abc".utf8)
    #expect(port.write(bytes, on: key) == .completed(3))
    #expect(peer.receive(exactly: 3) == Array("abc".utf8))
    #expect(port.becomesQuiet())
  }

  @Test("pieces leave in order in one write, empty ones included, more than 1,024 cut to that many")
  func pieces() throws {
    let (key, peer) = try loopback(on: port)
    let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: 2000, alignment: 1)
    defer { bytes.deallocate() }
    for index in 0..<2000 { bytes[index] = UInt8(truncatingIfNeeded: index) }
    var pieces = [iovec(iov_base: nil, iov_len: 0), iovec(iov_base: bytes.baseAddress, iov_len: 0)]
    for index in 0..<2000 { pieces.append(iovec(iov_base: bytes.baseAddress! + index, iov_len: 1)) }
    let result = pieces.withUnsafeBufferPointer { port.submit(.write($0), on: key) }
    #expect(result == .completed(1024))
    #expect(peer.receive(exactly: 1024) == (0..<1024).map { UInt8(truncatingIfNeeded: $0) })
  }

  @Test("what is sent now is taken as far as the kernel takes it, and nothing waits for the rest")
  func now() throws {
    let (key, peer) = try loopback(on: port)
    let bytes = (0..<1_000_000).map { UInt8(truncatingIfNeeded: $0 &* 7) }
    var sent: [UInt8] = []
    bytes.withUnsafeBytes { bytes in
      while true {
        // A piece of its own each time, of memory that is gone when the next is sent.
        let piece = UnsafeMutableRawBufferPointer.allocate(byteCount: 300_000, alignment: 1)
        piece.copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[..<300_000]))
        let submission = port.sendNow(UnsafeRawBufferPointer(piece), on: key)
        let count = if case .completed(let count) = submission { count } else { -1 }
        #expect(count >= 0, "\(submission)")
        sent += piece.prefix(max(count, 0))
        piece.initializeMemory(as: UInt8.self, repeating: 0xff)
        piece.deallocate()
        if count <= 0 { return }
      }
    }
    #expect(sent.count > 0 && port.sendNow(UnsafeRawBufferPointer(start: nil, count: 0), on: key) == .completed(0))
    #expect(port.becomesQuiet())
    #expect(peer.receive(exactly: sent.count) == sent)
    // Room has come, and nobody waits for it; a write after it is as ever.
    #expect(port.becomesQuiet())
    let last = UnsafeMutableRawBufferPointer.allocate(byteCount: 3, alignment: 1)
    defer { last.deallocate() }
    last.copyBytes(from: "end".utf8)
    #expect(port.write(last, on: key) == .completed(3))
    #expect(peer.receive(exactly: 3) == Array("end".utf8))
  }

  @Test("nothing is sent now on a handle that has gone")
  func nowGone() throws {
    let (key, _) = try loopback(on: port)
    port.close(key)
    let result = [UInt8](repeating: 1, count: 3).withUnsafeBytes { port.sendNow($0, on: key) }
    #expect(result == .failed(.badFileDescriptor))
  }

  @Test("writing nothing is done at once")
  func nothing() throws {
    let (key, _) = try loopback(on: port)
    #expect(port.submit(.write(UnsafeBufferPointer(start: nil, count: 0)), on: key) == .completed(0))
  }

  /// Writes `total` bytes as a caller does: advance by what was taken, wait for completions.
  private func writeAll(_ bytes: UnsafeMutableRawBufferPointer, on key: HandleKey) throws -> (
    pending: Int, partial: Int
  ) {
    var sent = 0
    var pending = 0
    var partial = 0
    while sent < bytes.count {
      let rest = UnsafeMutableRawBufferPointer(rebasing: bytes[sent...])
      switch port.write(rest, on: key) {
      case .completed(let count):
        if count < rest.count { partial += 1 }
        sent += count
      case .failed(let error): throw error
      case .pending:
        pending += 1
        let seen = try port.next()
        #expect(seen.kind == .write && seen.key == key && seen.error == nil && seen.count > 0)
        sent += seen.count
      }
    }
    return (pending, partial)
  }

  @Test("a write larger than the socket's buffers is taken in parts, waits, and arrives whole")
  func large() throws {
    let (key, peer) = try loopback(on: port)
    let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: 20_000_000, alignment: 1)
    defer { bytes.deallocate() }
    for index in 0..<bytes.count { bytes[index] = UInt8(truncatingIfNeeded: index &* 7 &+ index >> 9) }
    let expected = Array(bytes)
    nonisolated(unsafe) var received: [UInt8] = []
    let thread = Thread.start(name: "reader") { received = peer.receive(exactly: expected.count) }
    let (pending, partial) = try writeAll(bytes, on: key)
    thread.join()
    #expect(received == expected)
    #expect(pending > 0 && partial > 0)
    #expect(port.becomesQuiet())
  }

  @Test("reading goes on while a write waits, and both complete")
  func both() throws {
    let (key, peer) = try loopback(on: port)
    let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: 1_000_000, alignment: 1)
    defer { bytes.deallocate() }
    bytes.initializeMemory(as: UInt8.self, repeating: 1)
    var taken = 0
    while case .completed(let count) = port.write(bytes, on: key) { taken += count }
    _ = port.submit(.read, on: key)
    peer.send("meanwhile")
    #expect(try port.next().text == "meanwhile")
    _ = peer.receive(exactly: taken)
    let seen = try port.next()
    #expect(seen.kind == .write && seen.count > 0)
  }

  @Test("a peer that resets ends the waiting write with an error")
  func reset() throws {
    let (key, peer) = try loopback(on: port)
    let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: 1_000_000, alignment: 1)
    defer { bytes.deallocate() }
    bytes.initializeMemory(as: UInt8.self, repeating: 1)
    while case .completed = port.write(bytes, on: key) {}
    peer.reset()
    let seen = try port.next()
    #expect(seen.kind == .write && (seen.error == .connectionReset || seen.error == .brokenPipe))
    #expect(port.write(bytes, on: key) != .pending)
  }

  @Test("writing to a peer that is gone fails without a signal")
  func brokenPipe() throws {
    let (key, peer) = try socketPair(on: port)
    peer.close()
    let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: 10, alignment: 1)
    defer { bytes.deallocate() }
    bytes.initializeMemory(as: UInt8.self, repeating: 1)
    #expect(port.write(bytes, on: key) == .failed(.brokenPipe))
    let pieces = [iovec(iov_base: bytes.baseAddress, iov_len: 5), iovec(iov_base: bytes.baseAddress, iov_len: 5)]
    #expect(pieces.withUnsafeBufferPointer { port.submit(.write($0), on: key) } == .failed(.brokenPipe))
  }

  @Test("closing a handle ends its waiting write without a completion")
  func close() throws {
    let (key, peer) = try loopback(on: port)
    let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: 1_000_000, alignment: 1)
    defer { bytes.deallocate() }
    bytes.initializeMemory(as: UInt8.self, repeating: 1)
    while case .completed = port.write(bytes, on: key) {}
    port.close(key)
    #expect(port.becomesQuiet())
    peer.close()
  }
}
