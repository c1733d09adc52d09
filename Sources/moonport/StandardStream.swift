// Whole writes to the standard streams. Must never know what is written.

import Glibc

/// Standard output and standard error, unbuffered.
enum StandardStream {
  /// Opens /dev/null in place of each standard stream that the parent closed: else the next socket would get its
  /// number, and a client would read our log. First thing in the program.
  static func openMissing() {
    for descriptor in STDIN_FILENO...STDERR_FILENO where fcntl(descriptor, F_GETFD) < 0 {
      // The lowest free number is this one, since those below are open by now.
      unsafe _ = open("/dev/null", O_RDWR)
    }
  }

  /// Writes `text` and a line end.
  static func printLine(_ text: String, to descriptor: Int32) {
    printText(text + "\n", to: descriptor)
  }

  /// Writes `text` as it is.
  static func printText(_ text: String, to descriptor: Int32) {
    _ = write(Array(text.utf8), to: descriptor)
  }

  /// Writes all of `bytes`, waiting as long as it takes; 0 or the error number. See write(2).
  static func write(_ bytes: [UInt8], to descriptor: Int32) -> Int32 {
    var written = 0
    while written < bytes.count {
      let count = unsafe bytes.withUnsafeBytes { buffer in
        unsafe Glibc.write(descriptor, buffer.baseAddress! + written, buffer.count - written)
      }
      if count >= 0 {
        written += count
      } else if errno == EAGAIN {
        // Somebody who shares the terminal or pipe made it non-blocking.
        var entry = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
        _ = unsafe poll(&entry, 1, -1)
      } else if errno != EINTR {
        return errno
      }
    }
    return 0
  }
}
