// Everything a child process writes to one stream, read on a background thread so that the child never blocks on it.
//
// Must never know: the process, what the text means.

import Glibc

/// The bytes of one stream so far, and waiting for what is still to come.
package final class OutputCollector: @unchecked Sendable {
  private let monitor = Monitor()
  private var bytes: [UInt8] = []
  private var isComplete = false

  /// Reads `descriptor` to its end and then closes it; the collector owns it from here.
  init(reading descriptor: Int32) {
    startDetachedThread { [self] in
      var buffer = [UInt8](repeating: 0, count: 65_536)
      while true {
        let count = read(descriptor, &buffer, buffer.count)
        if count < 0, errno == EINTR { continue }
        // The terminal's side of a pseudo-terminal reports its end as EIO.
        guard count > 0 else { break }
        monitor.change { bytes += buffer[..<count] }
      }
      monitor.change { isComplete = true }
      close(descriptor)
    }
  }

  /// What has arrived until now.
  package var text: String { String(decoding: contents, as: UTF8.self) }

  /// What has arrived until now, byte for byte.
  package var contents: [UInt8] { monitor.locked { bytes } }

  /// Waits until `isEnough`, called with all that has arrived, is true; false when the stream ended or time was up.
  package func wait(timeout: Double = Patience.seconds, _ isEnough: (String) -> Bool) -> Bool {
    var seen = -1
    var enough = false
    _ = monitor.wait(until: Deadline(seconds: timeout)) {
      if bytes.count != seen {
        seen = bytes.count
        enough = isEnough(String(decoding: bytes, as: UTF8.self))
      }
      return enough || isComplete
    }
    return enough
  }

  /// Waits for the end of the stream; false when time was up.
  package func waitForEnd(timeout: Double = Patience.seconds) -> Bool {
    monitor.wait(until: Deadline(seconds: timeout)) { isComplete }
  }
}
