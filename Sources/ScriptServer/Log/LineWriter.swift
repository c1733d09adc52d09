// Writes whole lines to a descriptor that others may share, close, fill or stop reading. A line that cannot be written
// is counted and forgotten. Knows nothing of what the lines say.

import CompletionIO
import Glibc
import Synchronization

/// A descriptor for lines, used by many threads. Never raises and never waits longer than its patience; expects that
/// the process ignores SIGPIPE.
final class LineWriter: Sendable {
  /// What a pipe that poll(2) calls writable takes at once: PIPE_BUF, one page (pipe(7)). A longer write could block.
  static let pipeChunkBytes = 4096

  /// The patience with a terminal at least.
  private static let terminalMilliseconds: CInt = 20

  private let descriptor: CInt
  /// A descriptor of the writer's own, for a terminal.
  private let isOwned: Bool
  private let patienceMilliseconds: CInt
  /// Bytes per write(2): without bound for a file, which is always writable.
  private let chunkBytesMax: Int
  private let lock = ThreadLock()
  private let lost = Atomic<Int>(0)
  /// The last line was cut off in the middle; its end comes first. Guarded by `lock`.
  nonisolated(unsafe) private var isCut = false
  /// Nobody reads: patience is not spent again until a line gets through. Guarded by `lock`.
  nonisolated(unsafe) private var isStalled = false

  /// Standard error, which the log and the server's other lines share: two writers would cut into each other's lines where the
  /// reader takes them in parts.
  static let standardError = LineWriter(descriptor: STDERR_FILENO, patienceMilliseconds: 0)

  /// `patienceMilliseconds`: how long to wait for a reader that is behind, once per stall; 0 never waits.
  init(descriptor: CInt, patienceMilliseconds: CInt) {
    let own = Self.openTerminalAgain(descriptor)
    self.descriptor = own ?? descriptor
    isOwned = own != nil
    // A terminal has room for 8 KB: one that is read takes more in a moment.
    self.patienceMilliseconds = own == nil ? patienceMilliseconds : max(patienceMilliseconds, Self.terminalMilliseconds)
    var status = stat()
    let isFile = unsafe fstat(descriptor, &status) == 0 && status.st_mode & S_IFMT == S_IFREG
    chunkBytesMax = isFile ? .max : Self.pipeChunkBytes
  }

  deinit { if isOwned { close(descriptor) } }

  /// A terminal is called writable when it has any room, and then keeps whoever writes more than that waiting for its reader, as a
  /// remote one that hangs. Opened once more it can be told not to, without that being so for all who share the descriptor; nil for
  /// anything else. termios(3), open(2), proc(5)
  private static func openTerminalAgain(_ descriptor: CInt) -> CInt? {
    guard isatty(descriptor) == 1 else { return nil }
    let own = unsafe open("/proc/self/fd/\(descriptor)", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)
    return own >= 0 ? own : nil
  }

  /// Lines that were lost since the start, whole or in part.
  var lostLines: Int { lost.load(ordering: .relaxed) }

  /// Writes the line and a line feed with one writev(2), unless the reader takes it in parts. False when it was lost.
  @discardableResult
  func write(_ line: UnsafeRawBufferPointer) -> Bool {
    lock.withLock {
      let ending = unsafe isCut ? 1 : 0
      let total = ending + line.count + 1
      let written = unsafe writeAll(line, ending: ending, total: total)
      if written == total { unsafe isStalled = false }
      if written > 0 { unsafe isCut = written > ending && written < total }
      if written < total { lost.add(1, ordering: .relaxed) }
      return written == total
    }
  }

  /// Writes `ending` line feeds, the line and its line feed; returns how many bytes of the `total` got through.
  private func writeAll(_ line: UnsafeRawBufferPointer, ending: Int, total: Int) -> Int {
    var feed: UInt8 = 0x0a
    return unsafe withUnsafeMutableBytes(of: &feed) { feed in
      var written = 0
      var isRefused = false
      while written < total {
        guard isWritable() else { return written }
        let count = unsafe writeSome(line, feed: feed, ending: ending, from: written)
        if count >= 0 {
          written += count
          isRefused = false
        } else if errno == EAGAIN && !isRefused {
          // Another process took the room that poll(2) saw; asked once more, so that this cannot spin.
          isRefused = true
        } else if errno != EINTR {
          return written
        }
      }
      return written
    }
  }

  /// One writev(2) of what is left after `start` bytes.
  private func writeSome(
    _ line: UnsafeRawBufferPointer, feed: UnsafeMutableRawBufferPointer, ending: Int, from start: Int
  ) -> Int {
    let lineStart = min(max(0, start - ending), line.count)
    let lineCount = min(line.count - lineStart, chunkBytesMax - 2)
    let isEnd = lineStart + lineCount == line.count
    return unsafe withUnsafeTemporaryAllocation(of: iovec.self, capacity: 3) { parts in
      unsafe parts[0] = unsafe iovec(iov_base: feed.baseAddress, iov_len: start < ending ? 1 : 0)
      let base = unsafe line.baseAddress.map { unsafe UnsafeMutableRawPointer(mutating: $0 + lineStart) }
      unsafe parts[1] = unsafe iovec(iov_base: base, iov_len: lineCount)
      unsafe parts[2] = unsafe iovec(iov_base: feed.baseAddress, iov_len: isEnd ? 1 : 0)
      return unsafe writev(descriptor, parts.baseAddress, 3)
    }
  }

  /// Asks poll(2), first without waiting, then with the patience that is left for this stall.
  private func isWritable() -> Bool {
    if poll(milliseconds: 0) { return true }
    if unsafe isStalled { return false }
    unsafe isStalled = true
    return patienceMilliseconds > 0 && poll(milliseconds: patienceMilliseconds)
  }

  /// True also when the descriptor is broken: the write then tells how.
  private func poll(milliseconds: CInt) -> Bool {
    var entry = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
    while true {
      let count = unsafe Glibc.poll(&entry, 1, milliseconds)
      if count >= 0 { return count > 0 }
      if errno != EINTR { return true }
    }
  }
}

/// Standard output for `print`: whole lines, whatever the number of threads.
package final class StandardOutput: Sendable {
  /// The process' own.
  package static let shared = StandardOutput()

  /// Standard error, for the few lines that are not the log's.
  static let errors = StandardOutput(.standardError)

  /// 100 ms, once per stall: a pager or a slow pipe usually catches up in that time; longer would stop a worker's
  /// clients.
  package static let patienceMilliseconds: CInt = 100

  private let writer: LineWriter

  /// Lines to `descriptor`, which stays the caller's.
  package convenience init(descriptor: CInt = STDOUT_FILENO) {
    self.init(LineWriter(descriptor: descriptor, patienceMilliseconds: Self.patienceMilliseconds))
  }

  private init(_ writer: LineWriter) { self.writer = writer }

  /// Writes the bytes as they are and a line feed, in one piece as seen from other threads. When nobody reads (EPIPE),
  /// the disk is full (ENOSPC) or the reader is stuck, the line is counted and lost.
  package func write(line: UnsafeRawBufferPointer) { unsafe writer.write(line) }

  /// Writes a line of the server's own.
  func write(line: String) {
    var line = line
    line.withUTF8 { unsafe write(line: UnsafeRawBufferPointer($0)) }
  }

  /// Lines lost since the start, whole or in part.
  package var lostLines: Int { writer.lostLines }
}
