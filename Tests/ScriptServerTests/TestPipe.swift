// A pipe whose reading end the test holds.

import Glibc

/// A pipe; both ends are closed with it.
final class TestPipe {
  private(set) var reading: CInt
  let writing: CInt

  init(isBlocking: Bool = true) {
    signal(SIGPIPE, SIG_IGN)
    var ends: [CInt] = [-1, -1]
    precondition(pipe(&ends) == 0)
    (reading, writing) = (ends[0], ends[1])
    for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
    if !isBlocking { _ = fcntl(writing, F_SETFL, O_NONBLOCK) }
    _ = fcntl(reading, F_SETFL, O_NONBLOCK)
  }

  deinit {
    closeReading()
    close(writing)
  }

  func closeReading() {
    if reading >= 0 { close(reading) }
    reading = -1
  }

  /// Writes until no byte more fits, and returns how many did.
  func fill() -> Int {
    let flags = fcntl(writing, F_GETFL)
    _ = fcntl(writing, F_SETFL, flags | O_NONBLOCK)
    defer { _ = fcntl(writing, F_SETFL, flags) }
    let block = [UInt8](repeating: 0x2e, count: 4096)
    var total = 0
    while true {
      let count = write(writing, block, block.count)
      if count <= 0 { return total }
      total += count
    }
  }

  /// Everything that is in the pipe now.
  func drain() -> String {
    var all: [UInt8] = []
    var block = [UInt8](repeating: 0, count: 65536)
    while true {
      let count = read(reading, &block, block.count)
      if count <= 0 { return String(decoding: all, as: UTF8.self) }
      all += block[..<count]
    }
  }

  func lines() -> [String] {
    drain().split(separator: "\n", omittingEmptySubsequences: false).dropLast().map(String.init)
  }
}
