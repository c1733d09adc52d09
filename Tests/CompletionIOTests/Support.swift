// What the tests of the port share: plain peers to talk to it with, and waiting for a condition instead of a time.

import CompletionIO
import Glibc
import SystemPackage
import Testing

/// A completion with its bytes copied, so that it outlives its batch.
struct Seen {
  let kind: Completion.Kind
  let key: HandleKey
  let error: Errno?
  let count: Int
  let bytes: [UInt8]
  let packet: Packet?

  init(_ completion: Completion) {
    kind = completion.kind
    key = completion.key
    error = completion.error
    count = completion.count
    bytes = Array(completion.bytes)
    packet = completion.kind == .packet ? completion.packet : nil
  }

  var text: String { String(decoding: bytes, as: UTF8.self) }
}

/// How long a test waits for what must come before it gives up: no gate, only the end of a hang.
let patienceNanoseconds: UInt64 = 30_000_000_000

extension CompletionPort {
  /// One batch, without waiting.
  func poll() -> [Seen] { dequeue(timeoutNanoseconds: 0).map(Seen.init) }

  /// Dequeues until `count` completions came.
  func take(_ count: Int = 1, sourceLocation: SourceLocation = #_sourceLocation) throws -> [Seen] {
    var seen: [Seen] = []
    let end = CompletionPort.clock() + patienceNanoseconds
    while seen.count < count {
      guard CompletionPort.clock() < end else {
        Issue.record("only \(seen.count) of \(count) completions came", sourceLocation: sourceLocation)
        throw Errno.timedOut
      }
      seen += dequeue(timeoutNanoseconds: 100_000_000).map(Seen.init)
    }
    return seen
  }

  /// The next completion, which must be the only one of its batch: another one would be lost.
  func next(sourceLocation: SourceLocation = #_sourceLocation) throws -> Seen {
    let seen = try take(1, sourceLocation: sourceLocation)
    #expect(seen.count == 1, "completions came together", sourceLocation: sourceLocation)
    return seen[0]
  }

  /// Whether epoll has nothing to report for any handle: a port that spins never becomes quiet.
  func becomesQuiet() -> Bool {
    for _ in 0..<100 where poll().isEmpty {
      let before = CompletionPort.clock()
      let batch = dequeue(timeoutNanoseconds: 20_000_000)
      if batch.isEmpty && CompletionPort.clock() - before >= 20_000_000 { return true }
    }
    return false
  }

  /// Submits a write of bytes that stay where they are.
  func write(_ bytes: UnsafeMutableRawBufferPointer, on key: HandleKey) -> Submission {
    submitWrite(UnsafeRawBufferPointer(bytes), on: key)
  }
}

/// The other end of a connection: a blocking descriptor that closes itself.
final class Peer: @unchecked Sendable {
  private(set) var descriptor: CInt

  init(_ descriptor: CInt) {
    self.descriptor = descriptor
    var time = timeval(tv_sec: 30, tv_usec: 0)
    setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &time, socklen_t(MemoryLayout<timeval>.size))
    setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &time, socklen_t(MemoryLayout<timeval>.size))
  }

  /// Connects to a listener.
  convenience init(to address: SocketAddress) throws {
    let family = address.isUnix ? AF_UNIX : address.description.hasPrefix("[") ? AF_INET6 : AF_INET
    let descriptor = socket(family, CInt(SOCK_STREAM.rawValue), 0)
    let result = address.withSockAddr { connect(descriptor, $0, $1) }
    let error = errno
    self.init(descriptor)
    if result != 0 { throw Errno(rawValue: error) }
  }

  deinit { close() }

  func close() {
    if descriptor >= 0 { Glibc.close(descriptor) }
    descriptor = -1
  }

  func send(_ text: String) { send(Array(text.utf8)) }

  func send(_ bytes: [UInt8]) {
    var sent = 0
    while sent < bytes.count {
      let count = bytes.withUnsafeBytes {
        Glibc.send(descriptor, $0.baseAddress! + sent, $0.count - sent, CInt(MSG_NOSIGNAL))
      }
      guard count > 0 else { return }
      sent += count
    }
  }

  /// Reads up to `bytesMax` bytes: what is there, empty at the end of the stream, nil on an error.
  func receive(bytesMax: Int = 65536) -> [UInt8]? {
    var buffer = [UInt8](repeating: 0, count: bytesMax)
    let count = recv(descriptor, &buffer, bytesMax, 0)
    return count < 0 ? nil : Array(buffer.prefix(count))
  }

  /// Reads exactly so many bytes, or fewer at the end of the stream.
  func receive(exactly bytes: Int) -> [UInt8] {
    var all: [UInt8] = []
    while all.count < bytes, let some = receive(bytesMax: min(bytes - all.count, 65536)), !some.isEmpty { all += some }
    return all
  }

  func shutdownWrite() { shutdown(descriptor, CInt(SHUT_WR)) }

  /// Closes with a reset.
  func reset() {
    var now = linger(l_onoff: 1, l_linger: 0)
    setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &now, socklen_t(MemoryLayout<linger>.size))
    close()
  }
}

/// A connected pair of Unix-domain sockets, one end of it associated.
func socketPair(on port: CompletionPort) throws -> (key: HandleKey, peer: Peer) {
  var ends: [CInt] = [0, 0]
  #expect(socketpair(AF_UNIX, CInt(SOCK_STREAM.rawValue), 0, &ends) == 0)
  return (try port.associate(Descriptor(adopting: ends[0]), as: .socket), Peer(ends[1]))
}

/// A TCP connection over loopback, the accepted end of it associated.
func loopback(on port: CompletionPort) throws -> (key: HandleKey, peer: Peer) {
  let listener = try Listener.open(SocketAddress(parsing: "127.0.0.1:0"))
  let peer = try Peer(to: listener.address)
  var accepted = accept(listener.descriptor.rawValue, nil, nil)
  while accepted < 0 { accepted = accept(listener.descriptor.rawValue, nil, nil) }
  listener.close()
  return (try port.associate(Descriptor(adopting: accepted), as: .socket), peer)
}

/// A listener of the port that accepts.
func listen(_ port: CompletionPort, at text: String = "127.0.0.1:0") throws -> (key: HandleKey, address: SocketAddress)
{
  let listener = try Listener.open(SocketAddress(parsing: text))
  let address = listener.address
  let key = try port.associate(listener.take(), as: .listener)
  #expect(port.submit(.accept, on: key) == .pending)
  return (key, address)
}

/// A pipe, the reading end of it associated.
func pipe(on port: CompletionPort) throws -> (key: HandleKey, writer: Peer) {
  var ends: [CInt] = [0, 0]
  #expect(Glibc.pipe(&ends) == 0)
  return (try port.associate(Descriptor(adopting: ends[0]), as: .file), Peer(ends[1]))
}

/// Tries until it holds; false after the test's patience.
func eventually(_ condition: () throws -> Bool) rethrows -> Bool {
  let end = CompletionPort.clock() + patienceNanoseconds
  while CompletionPort.clock() < end {
    if try condition() { return true }
    usleep(1000)
  }
  return false
}

/// A new empty folder that the caller removes.
func temporaryFolder() -> String {
  var template = Array("/tmp/completionio-XXXXXX".utf8CString)
  return template.withUnsafeMutableBufferPointer { String(cString: mkdtemp($0.baseAddress!)) }
}
