// Lines typed at the server's terminal, for on_console. A thread of its own, because standard input may be a file or a terminal
// that cannot be polled.

import CompletionIO
import Glibc

/// Reads standard input to its end.
enum ConsoleThread {
  /// The longest line; what goes beyond is a line of its own.
  private static let lineBytesMax = 65536

  /// Starts the thread that posts each line to `mailbox`. It lives until the input ends.
  static func start(_ mailbox: Mailbox<WorkerMessage>) {
    _ = Thread.start(name: "console") {
      var line: [UInt8] = []
      var buffer = [UInt8](repeating: 0, count: 4096)
      while true {
        let count = unsafe buffer.withUnsafeMutableBytes { unsafe read(STDIN_FILENO, $0.baseAddress, $0.count) }
        if count < 0, errno == EINTR { continue }
        if count <= 0 { break }
        for byte in buffer[..<count] {
          if byte == UInt8(ascii: "\n") || line.count == lineBytesMax { post(&line, mailbox) }
          if byte != UInt8(ascii: "\n") { line.append(byte) }
        }
      }
      if !line.isEmpty { post(&line, mailbox) }
    }
  }

  private static func post(_ line: inout [UInt8], _ mailbox: Mailbox<WorkerMessage>) {
    if line.last == UInt8(ascii: "\r") { line.removeLast() }
    mailbox.post(.console(String(decoding: line, as: UTF8.self)))
    line.removeAll(keepingCapacity: true)
  }
}
