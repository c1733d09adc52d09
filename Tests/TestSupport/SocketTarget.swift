// Addresses as moonport prints them, to and from what the system calls take.
//
// Must never know: who listens there.

import Glibc

/// A socket address parsed from text; a wildcard becomes the loopback of its family, since it is connected to.
struct SocketTarget {
  private var storage = sockaddr_storage()
  private var length: socklen_t = 0

  init(_ text: String) throws {
    if text.hasPrefix("unix:") {
      try setUnix(path: String(text.dropFirst("unix:".count)))
      return
    }
    guard let colon = text.lastIndex(of: ":"), let port = UInt16(text[text.index(after: colon)...]) else {
      throw TestFailure("\"\(text)\" is no address")
    }
    let host = String(text[..<colon])
    if host.hasPrefix("["), host.hasSuffix("]") {
      try setV6(String(host.dropFirst().dropLast()), port)
    } else {
      try setV4(host, port)
    }
  }

  /// A new close-on-exec stream socket of the address's family.
  func makeSocket() throws -> Int32 {
    let kind = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
    let descriptor = socket(Int32(storage.ss_family), kind, 0)
    guard descriptor >= 0 else { throw TestFailure.call("socket") }
    return descriptor
  }

  func withAddress(_ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32) -> Int32 {
    withUnsafePointer(to: storage) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, length) }
    }
  }

  private mutating func set<Address>(_ address: Address) {
    withUnsafeMutableBytes(of: &storage) { $0.storeBytes(of: address, as: Address.self) }
    length = socklen_t(MemoryLayout<Address>.size)
  }

  private mutating func setV4(_ host: String, _ port: UInt16) throws {
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = port.bigEndian
    let loopback = host.isEmpty || host == "0.0.0.0" ? "127.0.0.1" : host
    guard inet_pton(AF_INET, loopback, &address.sin_addr) == 1 else { throw TestFailure("\"\(host)\" is no address") }
    set(address)
  }

  private mutating func setV6(_ host: String, _ port: UInt16) throws {
    var address = sockaddr_in6()
    address.sin6_family = sa_family_t(AF_INET6)
    address.sin6_port = port.bigEndian
    guard inet_pton(AF_INET6, host == "::" ? "::1" : host, &address.sin6_addr) == 1 else {
      throw TestFailure("\"\(host)\" is no address")
    }
    set(address)
  }

  private mutating func setUnix(path: String) throws {
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    let bytes = Array(path.utf8)
    guard bytes.count < MemoryLayout.size(ofValue: address.sun_path) else {
      throw TestFailure("\"\(path)\" is too long for a Unix socket")
    }
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
    set(address)
  }
}

/// The local address of a socket as `127.0.0.1:6000`, `[::1]:6000` or `unix:path`; the error's text when it has none.
func describeLocalAddress(of descriptor: Int32) -> String {
  var storage = sockaddr_storage()
  var length = socklen_t(MemoryLayout.size(ofValue: storage))
  let result = withUnsafeMutablePointer(to: &storage) {
    $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(descriptor, $0, &length) }
  }
  guard result == 0 else { return TestFailure.call("getsockname").description }
  return withUnsafeBytes(of: storage) { bytes in
    var text = [CChar](repeating: 0, count: Int(INET6_ADDRSTRLEN))
    switch Int32(storage.ss_family) {
    case AF_INET:
      var address = bytes.load(as: sockaddr_in.self)
      inet_ntop(AF_INET, &address.sin_addr, &text, socklen_t(text.count))
      return "\(string(text)):\(UInt16(bigEndian: address.sin_port))"
    case AF_INET6:
      var address = bytes.load(as: sockaddr_in6.self)
      inet_ntop(AF_INET6, &address.sin6_addr, &text, socklen_t(text.count))
      return "[\(string(text))]:\(UInt16(bigEndian: address.sin6_port))"
    default:
      let path = bytes[MemoryLayout<sa_family_t>.size..<Int(length)].prefix { $0 != 0 }
      return "unix:\(String(decoding: path, as: UTF8.self))"
    }
  }
}

private func string(_ text: [CChar]) -> String {
  text.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
}
