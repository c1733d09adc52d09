// A listening socket inside the test, for what connects out: the line client, and the tests of this support.
//
// Must never know: moonport.

import Glibc

/// A listener on a loopback or Unix address; closed with its owner.
package final class TestListener: @unchecked Sendable {
  private let descriptor: Int32
  /// Where it listens, with the port the kernel picked.
  package let address: String

  /// Listens on `address`; port 0 picks one.
  package init(_ address: String = "127.0.0.1:0") throws {
    let target = try SocketTarget(address)
    let descriptor = try target.makeSocket()
    var on: Int32 = 1
    setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &on, socklen_t(MemoryLayout.size(ofValue: on)))
    guard target.withAddress({ bind(descriptor, $0, $1) }) == 0, listen(descriptor, SOMAXCONN) == 0 else {
      let failure = TestFailure.call("listen on \(address)")
      close(descriptor)
      throw failure
    }
    self.descriptor = descriptor
    self.address = describeLocalAddress(of: descriptor)
  }

  deinit { close(descriptor) }

  /// The next client; a failure when none comes within `timeout` seconds.
  package func accept(timeout: Double = Patience.seconds) throws -> TestClient {
    guard try waitUntilReady(descriptor, POLLIN, Deadline(seconds: timeout)) else {
      throw TestFailure("no client connected to \(address) within \(timeout) s")
    }
    let client = Glibc.accept(descriptor, nil, nil)
    guard client >= 0 else { throw TestFailure.call("accept") }
    return TestClient(adopting: client)
  }
}
