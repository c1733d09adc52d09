import CompletionIO
import Glibc
import SystemPackage
import Testing

@Suite("Connecting")
struct ConnectTests {
  let port: CompletionPort

  init() throws { port = try CompletionPort() }

  /// Connects and returns the error, if any.
  private func connect(to address: SocketAddress) throws -> (key: HandleKey, error: Errno?) {
    let key = try port.associate(address.openSocket(), as: .socket)
    switch port.submit(.connect(address), on: key) {
    case .completed: return (key, nil)
    case .failed(let error): return (key, error)
    case .pending:
      let seen = try port.next()
      #expect(seen.kind == .connect && seen.key == key)
      return (key, seen.error)
    }
  }

  @Test(
    "a connection that is made reads and writes", arguments: ["127.0.0.1:0", "[::1]:0", "unix:@completionio-connect"])
  func connects(text: String) throws {
    let listener = try Listener.open(SocketAddress(parsing: text))
    let (key, error) = try connect(to: listener.address)
    #expect(error == nil)
    let peer = Peer(accept(listener.descriptor.rawValue, nil, nil))
    _ = port.submit(.read, on: key)
    peer.send("welcome")
    #expect(try port.next().text == "welcome")
    let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: 6, alignment: 1)
    defer { bytes.deallocate() }
    bytes.copyBytes(from: "thanks".utf8)
    #expect(port.write(bytes, on: key) == .completed(6))
    #expect(peer.receive(exactly: 6) == Array("thanks".utf8))
    listener.close()
  }

  @Test("a port where nobody listens is an error, once, and does not spin")
  func refused() throws {
    let listener = try Listener.open(SocketAddress(parsing: "127.0.0.1:0"))
    let address = listener.address
    listener.close()
    let (key, error) = try connect(to: address)
    #expect(error == .connectionRefused)
    #expect(port.poll().allSatisfy { $0.kind == .hangup })
    #expect(port.becomesQuiet())
    port.close(key)
  }

  @Test("a read and a write submitted while the connect is under way complete after it")
  func early() throws {
    let listener = try Listener.open(SocketAddress(parsing: "127.0.0.1:0"))
    let key = try port.associate(listener.address.openSocket(), as: .socket)
    let began = port.submit(.connect(listener.address), on: key)
    _ = port.submit(.read, on: key)
    if began == .pending { #expect(try port.next().kind == .connect) }
    let peer = Peer(accept(listener.descriptor.rawValue, nil, nil))
    peer.send("early")
    #expect(try port.next().text == "early")
    listener.close()
  }
}
