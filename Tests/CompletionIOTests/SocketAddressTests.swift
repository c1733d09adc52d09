import CompletionIO
import Glibc
import SystemPackage
import Testing

@Suite("Socket addresses")
struct SocketAddressTests {
  @Test(
    "an address's text is what it was parsed from",
    arguments: [
      "127.0.0.1:6000", "0.0.0.0:0", "[::1]:6000", "[2001:db8::7]:65535", ":6000", "unix:/run/app.sock",
      "unix:relative",
      "unix:@abstract", "[fe80::1%1]:80",
    ])
  func roundTrip(text: String) throws {
    let address = try SocketAddress(parsing: text)
    #expect(address.description == text)
    #expect(try SocketAddress(parsing: address.description) == address)
  }

  @Test("host and port are told apart, and a Unix-domain address has one host and no port")
  func parts() throws {
    let four = try SocketAddress(parsing: "localhost:6000")
    #expect(four.description == "127.0.0.1:6000" && four.host == "127.0.0.1" && four.port == 6000 && !four.isUnix)
    let six = try SocketAddress(parsing: "[::1]:7")
    #expect(six.host == "::1" && six.port == 7)
    let unix = try SocketAddress(parsing: "unix:/a")
    #expect(unix.host == "unix" && unix.port == nil && unix.isUnix)
    #expect(try SocketAddress(parsing: "[::ffff:10.0.0.1]:5").description == "10.0.0.1:5")
  }

  @Test("addresses are equal when they are written alike")
  func equality() throws {
    #expect(try SocketAddress(parsing: "127.0.0.1:1") == SocketAddress(parsing: "localhost:1"))
    #expect(try SocketAddress(parsing: ":1") != SocketAddress(parsing: "[::]:1"))
    #expect(try SocketAddress(parsing: "unix:a") != SocketAddress(parsing: "unix:@a"))
    let set = try Set(["127.0.0.1:1", "127.0.0.1:2", "[::1]:1", "unix:a"].map { try SocketAddress(parsing: $0) })
    let local = try SocketAddress(parsing: "localhost:1")
    #expect(set.count == 4 && set.contains(local))
  }

  @Test(
    "what is no address is refused with the reason and the forms",
    arguments: [
      ("6000", "port is missing"), ("127.0.0.1", "port is missing"), ("127.0.0.1:", "port is missing"),
      ("127.0.0.1:65536", "not a port"), ("127.0.0.1:-1", "not a port"), ("127.0.0.1:80x", "not a port"),
      ("::1:6000", "brackets"), ("[::1:6000", "closing bracket"), ("[::1]6000", "not a port"),
      ("[1.2.3.4]:6000", "not a numeric IPv6"), ("example.org:6000", "not a numeric IPv4"),
      ("[fe80::1%nosuch0]:1", "no interface"),
      ("unix:", "path is missing"), ("unix:@", "path is missing"), ("unix:a\0b", "zero byte"), ("", "port is missing"),
    ])
  func refused(text: String, reason: String) {
    let error = #expect(throws: SocketAddressError.self) { try SocketAddress(parsing: text) }
    #expect(error?.description.contains(reason) == true, "\(String(describing: error))")
    #expect(error?.description.contains("127.0.0.1:6000") == true)
  }

  @Test("a path of the system's whole length is an address and one byte more is not")
  func longPaths() throws {
    #expect(try SocketAddress(parsing: "unix:" + String(repeating: "p", count: 107)).description.utf8.count == 112)
    #expect(throws: SocketAddressError.self) {
      try SocketAddress(parsing: "unix:" + String(repeating: "p", count: 108))
    }
    #expect(try SocketAddress(parsing: "unix:@" + String(repeating: "p", count: 107)).description.utf8.count == 113)
    #expect(throws: SocketAddressError.self) {
      try SocketAddress(parsing: "unix:@" + String(repeating: "p", count: 108))
    }
  }

  @Test("both ends of a connection know each other's address, and an unnamed Unix peer has a text too")
  func ends() throws {
    let port = try CompletionPort()
    let (key, peer) = try loopback(on: port)
    let descriptor = try #require(port.descriptor(of: key))
    #expect(try SocketAddress.peer(of: descriptor) == SocketAddress.local(of: peer.descriptor))
    #expect(try SocketAddress.peer(of: peer.descriptor) == SocketAddress.local(of: descriptor))
    let (unix, _) = try socketPair(on: port)
    #expect(try SocketAddress.peer(of: port.descriptor(of: unix)!).description == "unix:")
  }
}
