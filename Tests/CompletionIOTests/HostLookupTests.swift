import CompletionIO
import Testing

@Suite("Looking hosts up")
struct HostLookupTests {
  @Test("literal addresses are read without a look-up, names are not")
  func literals() throws {
    #expect(SocketAddress(host: "127.0.0.1", port: 80)?.description == "127.0.0.1:80")
    #expect(SocketAddress(host: "::1", port: 81)?.description == "[::1]:81")
    #expect(SocketAddress(host: "::ffff:1.2.3.4", port: 1)?.description == "1.2.3.4:1")
    for text in ["localhost", "", "1.2.3", "1.2.3.4.5", "[::1]", "12345::1", "127.0.0.1\0", "::1\0", "a:b"] {
      #expect(SocketAddress(host: text, port: 1) == nil, "\(text)")
    }
  }

  @Test("a name of /etc/hosts has its addresses, each once, with the port")
  func hosts() throws {
    let addresses = try SocketAddress.lookUp("localhost", port: 6000)
    #expect(addresses.contains { $0.description == "127.0.0.1:6000" || $0.description == "[::1]:6000" })
    #expect(Set(addresses).count == addresses.count)
    #expect(addresses.allSatisfy { $0.port == 6000 })
  }

  @Test("what cannot be a name is not found")
  func noName() {
    for text in ["", "a b", "a..b", "x\0", String(repeating: "x", count: 300)] {
      #expect(throws: HostLookupFailure.notFound, "\(text)") { try SocketAddress.lookUp(text, port: 1) }
    }
  }
}
