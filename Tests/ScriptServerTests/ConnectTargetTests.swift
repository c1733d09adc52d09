import CompletionIO
import Testing

@testable import ScriptServer

@Suite("Texts to connect to")
struct ConnectTargetTests {
  private func addresses(_ text: String) throws -> [String]? {
    if case .addresses(let addresses) = try ConnectTarget(parsing: text) { return addresses.map(\.description) }
    return nil
  }

  @Test("literal addresses and paths need no look-up")
  func literal() throws {
    #expect(try addresses("127.0.0.1:80") == ["127.0.0.1:80"])
    #expect(try addresses("[::1]:80") == ["[::1]:80"])
    #expect(try addresses("unix:/tmp/x") == ["unix:/tmp/x"])
    #expect(try addresses("unix:@x") == ["unix:@x"])
  }

  @Test("an address without a host is this machine, in both versions")
  func everyInterface() throws {
    #expect(try addresses(":6000") == ["[::1]:6000", "127.0.0.1:6000"])
  }

  @Test("anything else before the port is a name")
  func names() throws {
    #expect(try ConnectTarget(parsing: "localhost:1") == .name("localhost", port: 1))
    #expect(try ConnectTarget(parsing: "db.example:65535") == .name("db.example", port: 65535))
    #expect(try ConnectTarget(parsing: "1.2.3:4") == .name("1.2.3", port: 4))
  }

  @Test("what is none says what an address looks like")
  func wrong() {
    for text in [
      "", "host", "host:", "host:0", "host:65536", "host:x", "host:+1", "::1:80", "[::1]", "[::1]:0", "[::1:80",
      "[x]:80",
      "unix:", "a\0b:1", String(repeating: "x", count: 254) + ":1",
    ] {
      #expect(throws: ConnectTargetError.self, "\(text)") { try ConnectTarget(parsing: text) }
    }
  }
}
