// A blocking client of a stream socket, with every wait bounded: what does not come in time is a failure that says so.
//
// Must never know: moonport. It talks bytes and lines.

import Glibc

/// A connection to a listener of this machine. One thread may send while another receives.
package final class TestClient: @unchecked Sendable {
  private var descriptor: Int32
  /// Received; what lies before `start` was asked for.
  private var received: [UInt8] = []
  private var start = 0
  private var hasEnded = false
  /// How long each call waits, in seconds.
  package var timeout = Patience.seconds

  /// How the peer ended the stream.
  package enum End: Equatable, Sendable {
    /// It closed its side: end of file.
    case closed
    /// It reset the connection.
    case reset
  }

  /// Connects to an address as `moonport run` prints it: `127.0.0.1:6000`, `[::1]:6000`, `:6000`, `unix:path`.
  ///
  /// `receiveBufferBytes` sets SO_RCVBUF before connecting, so that a client that does not read fills up early.
  package init(_ address: String, receiveBufferBytes: Int? = nil) throws {
    let target = try SocketTarget(address)
    descriptor = try target.makeSocket()
    if let bytes = receiveBufferBytes { try setReceiveBuffer(bytes: bytes) }
    let result = target.withAddress { Glibc.connect(descriptor, $0, $1) }
    guard result == 0 else {
      let failure = TestFailure.call("connect to \(address)")
      close()
      throw failure
    }
  }

  /// Takes over a connected socket, as `TestListener.accept` does.
  init(adopting descriptor: Int32) {
    self.descriptor = descriptor
  }

  deinit { close() }

  // MARK: Sending

  package func send(_ text: String) throws { try send(Array(text.utf8)) }

  /// Sends all of `bytes`; a peer that does not read them within the timeout is a failure.
  package func send(_ bytes: [UInt8]) throws {
    let deadline = Deadline(seconds: timeout)
    var start = 0
    while start < bytes.count {
      start += try sendSome(bytes[start...])
      if start < bytes.count, try !wait(for: POLLOUT, until: deadline) {
        throw TestFailure("the peer took \(start) of \(bytes.count) bytes within \(timeout) s")
      }
    }
  }

  /// Sends as much of `bytes` as fits at once and returns how much that was: 0 when the peer does not read.
  package func trySend(_ bytes: [UInt8]) throws -> Int { try sendSome(bytes[...]) }

  /// Ends this side of the stream; receiving goes on.
  package func halfClose() throws {
    guard shutdown(descriptor, Int32(SHUT_WR)) == 0 else { throw TestFailure.call("shutdown") }
  }

  /// Closes so that the peer sees a reset, dropping what is unsent (SO_LINGER with 0 seconds).
  package func reset() {
    var linger = linger(l_onoff: 1, l_linger: 0)
    setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &linger, socklen_t(MemoryLayout.size(ofValue: linger)))
    close()
  }

  /// Closes the connection; more than once does nothing.
  package func close() {
    if descriptor >= 0 { Glibc.close(descriptor) }
    descriptor = -1
  }

  /// Sets SO_RCVBUF; the kernel doubles it and has a minimum.
  package func setReceiveBuffer(bytes: Int) throws {
    var size = Int32(bytes)
    let result = setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &size, socklen_t(MemoryLayout.size(ofValue: size)))
    guard result == 0 else { throw TestFailure.call("setsockopt SO_RCVBUF") }
  }

  /// Sends small writes at once (TCP_NODELAY); nothing on a Unix socket.
  package func setNoDelay() {
    var on: Int32 = 1
    setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &on, socklen_t(MemoryLayout.size(ofValue: on)))
  }

  /// This side's address as text, `127.0.0.1:40000`: what the server calls the peer.
  package var localAddress: String { describeLocalAddress(of: descriptor) }

  // MARK: Receiving

  /// The next line without its LF; the end of the stream before one is a failure.
  package func receiveLine() throws -> String {
    guard let line = try receiveLineOrEnd() else { throw TestFailure("the stream ended where a line was expected") }
    return line
  }

  /// The next line without its LF, or nil at the end of the stream; an unfinished line before the end is a failure.
  package func receiveLineOrEnd() throws -> String? {
    let deadline = Deadline(seconds: timeout)
    var searched = 0
    while true {
      if let end = indexOfLineFeed(from: start + searched) {
        defer { take(end + 1 - start) }
        return String(decoding: received[start..<end], as: UTF8.self)
      }
      searched = pendingCount
      if try receiveMore(until: deadline, what: "a line") { continue }
      guard pendingCount == 0 else { throw TestFailure("the stream ended inside a line: \(seen)") }
      return nil
    }
  }

  /// Exactly `count` bytes.
  package func receive(exactly count: Int) throws -> [UInt8] {
    let deadline = Deadline(seconds: timeout)
    while pendingCount < count {
      guard try receiveMore(until: deadline, what: "\(count) bytes") else {
        throw TestFailure("the stream ended after \(pendingCount) of \(count) bytes: \(seen)")
      }
    }
    defer { take(count) }
    return Array(received[start..<start + count])
  }

  /// Everything up to the end of the stream; a reset is a failure.
  package func receiveUntilEnd() throws -> [UInt8] {
    let deadline = Deadline(seconds: timeout)
    while try receiveMore(until: deadline, what: "the end") {}
    return takeAll()
  }

  /// `receiveUntilEnd` as text.
  package func receiveTextUntilEnd() throws -> String { String(decoding: try receiveUntilEnd(), as: UTF8.self) }

  /// Drops what still comes and tells how the stream ended.
  package func waitForEnd() throws -> End {
    let deadline = Deadline(seconds: timeout)
    while true {
      _ = takeAll()
      switch try receiveOnce(until: deadline) {
      case .bytes: continue
      case .end: return .closed
      case .reset: return .reset
      case .nothing: throw TestFailure("the peer did not end the connection within \(timeout) s")
      }
    }
  }

  /// Whatever comes within `seconds`, as soon as anything does: nil for nothing, an empty array at the end.
  ///
  /// For showing that something does *not* come: then it waits all that time, so keep it short.
  package func tryReceive(for seconds: Double) throws -> [UInt8]? {
    if pendingCount > 0 { return takeAll() }
    switch try receiveOnce(until: Deadline(seconds: seconds)) {
    case .bytes: return takeAll()
    case .end: return []
    case .reset: throw TestFailure("the peer reset the connection")
    case .nothing: return nil
    }
  }

  // MARK: One system call

  private enum Received {
    case bytes, end, reset, nothing
  }

  /// What has been received and not taken, shortened, for a failure's description.
  private var seen: String {
    "\"\(String(decoding: received[start...].suffix(200), as: UTF8.self))\" (\(pendingCount) bytes)"
  }

  /// How many bytes were received and not asked for.
  private var pendingCount: Int { received.count - start }

  private func take(_ count: Int) {
    start += count
    if start == received.count { _ = takeAll() }
  }

  private func takeAll() -> [UInt8] {
    defer {
      received = []
      start = 0
    }
    return start == 0 ? received : Array(received[start...])
  }

  /// By memchr(3): a loop in a debug build would be slower than the server.
  private func indexOfLineFeed(from index: Int) -> Int? {
    received.withUnsafeBytes { bytes in
      guard index < bytes.count, let base = bytes.baseAddress else { return nil }
      return memchr(base + index, 10, bytes.count - index).map { UnsafeRawPointer($0) - base }
    }
  }

  private func receiveMore(until deadline: Deadline, what: String) throws -> Bool {
    switch try receiveOnce(until: deadline) {
    case .bytes: return true
    case .end: return false
    case .reset: throw TestFailure("the peer reset the connection where \(what) was expected, after \(seen)")
    case .nothing: throw TestFailure("\(what) did not come within \(timeout) s; there is \(seen)")
    }
  }

  private func receiveOnce(until deadline: Deadline) throws -> Received {
    if hasEnded { return .end }
    // What was asked for is dropped when that halves what is kept, so that it costs nothing for each line.
    if start > received.count / 2 {
      received.removeFirst(start)
      start = 0
    }
    var buffer = [UInt8](repeating: 0, count: 65_536)
    while true {
      guard try wait(for: POLLIN, until: deadline) else { return .nothing }
      let count = recv(descriptor, &buffer, buffer.count, Int32(MSG_DONTWAIT))
      if count > 0 {
        received += buffer[..<count]
        return .bytes
      }
      if count == 0 {
        hasEnded = true
        return .end
      }
      switch errno {
      case EINTR, EAGAIN: continue
      case ECONNRESET, EPIPE: return .reset
      default: throw TestFailure.call("recv")
      }
    }
  }

  private func sendSome(_ bytes: ArraySlice<UInt8>) throws -> Int {
    while true {
      let count = bytes.withUnsafeBytes {
        Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_DONTWAIT | MSG_NOSIGNAL))
      }
      if count >= 0 { return count }
      switch errno {
      case EINTR: continue
      case EAGAIN: return 0
      default: throw TestFailure.call("send")
      }
    }
  }

  private func wait(for events: Int32, until deadline: Deadline) throws -> Bool {
    try waitUntilReady(descriptor, events, deadline)
  }
}

/// Waits with poll(2); false when the deadline passed first.
func waitUntilReady(_ descriptor: Int32, _ events: Int32, _ deadline: Deadline) throws -> Bool {
  var polled = pollfd(fd: descriptor, events: Int16(events), revents: 0)
  while true {
    let count = poll(&polled, 1, deadline.milliseconds)
    if count > 0 { return true }
    if count == 0 { return false }
    guard errno == EINTR else { throw TestFailure.call("poll") }
  }
}
