// What passes for a server: it listens on an admin socket and says to each client what a test has it say.
//
// Must never know: what the client makes of it.

import ScriptServer
import Synchronization
import TestSupport

/// How a rogue server treats one client.
struct RogueConduct: Sendable, CustomStringConvertible {
  enum End { case close, shutdown, whenTheClientDoes }

  var request: AdminRequest
  var bytes: [UInt8]
  var chunks: [Int]
  /// What the client should find in `bytes`.
  var expected: ReferenceVerdict<AdminReply>
  /// Whether the request is read before anything is sent: if it is not, the close resets the connection.
  var readsFirst = true
  var end = End.close
  /// How many bytes more are sent, as fast as the client takes them.
  var floodBytes = 0

  var description: String {
    let how = "\(readsFirst ? "after" : "without") reading, then \(end)\(floodBytes > 0 ? ", flooding" : "")"
    return "\(bytes.prefix(2000)) in pieces of \(chunks.prefix(50)), \(how)"
  }
}

/// Listens like a server, and treats each client as it was told last.
final class AdminRogueServer: Sendable {
  let path: String
  private let conduct = Mutex<RogueConduct?>(nil)
  private let isOver = Flag()
  private let thread = Mutex<TestThread?>(nil)

  init(path: String) throws {
    self.path = path
    let listener = try TestListener("unix:\(path)")
    thread.withLock { $0 = TestThread { [self] in serve(listener) } }
  }

  /// Says how the next client is to be treated.
  func next(_ conduct: RogueConduct) { self.conduct.withLock { $0 = conduct } }

  /// Ends the server's thread. To be called before the test lets go of the server.
  func stop() throws {
    isOver.raise()
    try thread.withLock { $0 }?.join()
  }

  private func serve(_ listener: TestListener) {
    while !isOver.isRaised {
      guard let client = try? listener.accept(timeout: 0.1), let conduct = conduct.withLock({ $0 }) else { continue }
      // A client that has heard enough leaves, and what is left to say to it cannot be sent.
      try? treat(client, conduct)
      client.close()
    }
  }

  private func treat(_ client: TestClient, _ conduct: RogueConduct) throws {
    if conduct.readsFirst {
      _ = try client.receive(exactly: try AdminProtocol.encodeRequest(conduct.request.words).count)
    }
    var start = 0
    for count in conduct.chunks {
      try client.send(Array(conduct.bytes[start..<start + count]))
      start += count
    }
    let flood = [UInt8](repeating: UInt8(ascii: "f"), count: min(conduct.floodBytes, 1 << 20))
    var left = conduct.floodBytes
    while left > 0 {
      try client.send(flood)
      left -= flood.count
    }
    if conduct.end == .shutdown { try client.halfClose() }
    if conduct.end != .close { _ = try client.waitForEnd() }
  }
}
