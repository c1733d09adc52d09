// Stream socket addresses as values: IPv4, IPv6 and Unix-domain. It must never know what an address is used for, and
// it makes no system calls but the two that ask for a socket's own addresses. Parsing is in SocketAddressParsing.

import CLinux
import Glibc
import SystemPackage

/// An IPv4, IPv6 or Unix-domain address of a stream socket. Trivial.
///
/// Its text forms are `127.0.0.1:6000`, `[::1]:6000`, `:6000` (every interface, version 6 and version 4), `unix:path`
/// and `unix:@abstract` (unix(7)). IPv4 peers of a socket that serves both versions (`::ffff:127.0.0.1`) are turned
/// into plain IPv4 addresses.
public struct SocketAddress: Sendable, Hashable, CustomStringConvertible {
  private var storage: sockaddr_storage
  private var length: socklen_t
  /// Written as ":port": bind for version 6 and version 4 together.
  let isEveryInterface: Bool

  /// Copies `length` bytes of an address that the kernel or the parser filled in.
  init(_ storage: sockaddr_storage, length: socklen_t, isEveryInterface: Bool = false) {
    self.storage = storage
    self.length = min(length, socklen_t(MemoryLayout<sockaddr_storage>.size))
    self.isEveryInterface = isEveryInterface
    unmapVersion4()
  }

  /// IPv4 from its four bytes in network order.
  init(version4 address: in_addr, port: UInt16) {
    var parts = sockaddr_in()
    parts.sin_family = sa_family_t(AF_INET)
    parts.sin_port = port.bigEndian
    parts.sin_addr = address
    self.init(copying: parts)
  }

  /// IPv6 with the interface's index for link-local addresses, otherwise 0.
  init(version6 address: in6_addr, port: UInt16, scope: UInt32 = 0, isEveryInterface: Bool = false) {
    var parts = sockaddr_in6()
    parts.sin6_family = sa_family_t(AF_INET6)
    parts.sin6_port = port.bigEndian
    parts.sin6_addr = address
    parts.sin6_scope_id = scope
    self.init(copying: parts, isEveryInterface: isEveryInterface)
  }

  /// A Unix-domain address from the bytes of sun_path; an abstract name begins with 0. nil when they are too many.
  init?(unixPath path: some Collection<UInt8>) {
    // A path needs a final zero, an abstract name ends where the length says.
    let isAbstract = path.first == 0
    guard path.count + (isAbstract ? 0 : 1) <= Self.unixPathMax else { return nil }
    var parts = sockaddr_un()
    parts.sun_family = sa_family_t(AF_UNIX)
    unsafe withUnsafeMutableBytes(of: &parts) { bytes in
      for (index, byte) in path.enumerated() { unsafe bytes[Self.unixPathOffset + index] = byte }
    }
    self.init(copying: parts, length: Self.unixPathOffset + path.count + (isAbstract ? 0 : 1))
  }

  private init<Parts>(copying parts: Parts, length: Int? = nil, isEveryInterface: Bool = false) {
    var storage = sockaddr_storage()
    unsafe withUnsafeMutableBytes(of: &storage) { unsafe $0.storeBytes(of: parts, as: Parts.self) }
    self.init(storage, length: socklen_t(length ?? MemoryLayout<Parts>.size), isEveryInterface: isEveryInterface)
  }

  /// Bytes of sun_path, unix(7).
  static let unixPathMax = 108
  private static let unixPathOffset = 2

  /// AF_INET, AF_INET6 or AF_UNIX.
  var family: CInt { length < 2 ? AF_UNSPEC : CInt(storage.ss_family) }

  /// Whether this is a Unix-domain address.
  public var isUnix: Bool { family == AF_UNIX }

  /// The port of an IP address; nil for a Unix-domain address.
  public var port: UInt16? {
    switch family {
    case AF_INET: UInt16(bigEndian: load(sockaddr_in.self).sin_port)
    case AF_INET6: UInt16(bigEndian: load(sockaddr_in6.self).sin6_port)
    default: nil
    }
  }

  /// The address without port and brackets, as caps per address use it; "unix" for every Unix-domain address.
  public var host: String {
    switch family {
    case AF_INET: return text(load(sockaddr_in.self).sin_addr, AF_INET)
    case AF_INET6:
      let parts = load(sockaddr_in6.self)
      let scope = parts.sin6_scope_id == 0 ? "" : "%\(parts.sin6_scope_id)"
      return text(parts.sin6_addr, AF_INET6) + scope
    default: return "unix"
    }
  }

  /// The text that `init(parsing:)` reads.
  public var description: String {
    switch family {
    case AF_INET: return "\(host):\(port!)"
    case AF_INET6: return isEveryInterface ? ":\(port!)" : "[\(host)]:\(port!)"
    case AF_UNIX:
      let path = unixPath
      let isAbstract = path.first == 0
      return "unix:" + (isAbstract ? "@" : "") + String(decoding: path.dropFirst(isAbstract ? 1 : 0), as: UTF8.self)
    default: return "unknown"
    }
  }

  /// The bytes of a Unix-domain address without the final zero: a path, or 0 and the abstract name. Empty for the
  /// unnamed end of a connection.
  var unixPath: [UInt8] {
    guard isUnix, Int(length) > Self.unixPathOffset else { return [] }
    let path = unsafe withUnsafeBytes(of: storage) { unsafe Array($0[Self.unixPathOffset..<Int(length)]) }
    return path.first == 0 ? path : Array(path.prefix { $0 != 0 })
  }

  /// The socket file of a Unix-domain address with a path, otherwise nil.
  var socketFilePath: String? {
    let path = unixPath
    return path.isEmpty || path.first == 0 ? nil : String(decoding: path, as: UTF8.self)
  }

  /// The address with another port; Unix-domain addresses have none and stay.
  func withPort(of other: SocketAddress) -> SocketAddress {
    guard isEveryInterface, let port = other.port, other.family == AF_INET6 else { return other }
    return SocketAddress(version6: load(sockaddr_in6.self).sin6_addr, port: port, isEveryInterface: true)
  }

  /// Passes the address as the C calls want it.
  public func withSockAddr<Result>(_ body: (UnsafePointer<sockaddr>, socklen_t) -> Result) -> Result {
    unsafe withUnsafePointer(to: storage) { pointer in
      unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { unsafe body($0, length) }
    }
  }

  /// The address a socket is bound to. getsockname(2).
  public static func local(of descriptor: CInt) throws(Errno) -> SocketAddress {
    try unsafe ask { unsafe getsockname(descriptor, $0, $1) }
  }

  /// The address of a connected socket's other end; a peer that already reset the connection is `.notConnected`.
  /// getpeername(2).
  public static func peer(of descriptor: CInt) throws(Errno) -> SocketAddress {
    try unsafe ask { unsafe getpeername(descriptor, $0, $1) }
  }

  private static func ask(
    _ call: (UnsafeMutablePointer<sockaddr>, UnsafeMutablePointer<socklen_t>) -> CInt
  ) throws(Errno) -> SocketAddress {
    var storage = sockaddr_storage()
    var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
    let result = unsafe withUnsafeMutablePointer(to: &storage) { pointer in
      unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { unsafe call($0, &length) }
    }
    if result != 0 { throw Errno(rawValue: errno) }
    return SocketAddress(storage, length: length)
  }

  /// Two addresses are equal when they are written alike.
  public static func == (left: SocketAddress, right: SocketAddress) -> Bool {
    guard left.isEveryInterface == right.isEveryInterface else { return false }
    return unsafe left.withBytes { leftBytes in unsafe right.withBytes { unsafe leftBytes.elementsEqual($0) } }
  }

  /// Hashes the address's bytes.
  public func hash(into hasher: inout Hasher) {
    hasher.combine(isEveryInterface)
    unsafe withBytes { unsafe hasher.combine(bytes: $0) }
  }

  /// Hashes who the host is and not its port: an IPv4 address, the network of an IPv6 address (its first 64 bits, within
  /// which one host may choose), or nothing for a Unix-domain address.
  public func hashHost(into hasher: inout Hasher) {
    switch family {
    case AF_INET: hasher.combine(load(sockaddr_in.self).sin_addr.s_addr)
    case AF_INET6:
      let network = unsafe withUnsafeBytes(of: load(sockaddr_in6.self).sin6_addr) {
        unsafe $0.loadUnaligned(as: UInt64.self)
      }
      hasher.combine(network)
    default: break
    }
  }

  private func withBytes<Result>(_ body: (UnsafeRawBufferPointer) -> Result) -> Result {
    unsafe withUnsafeBytes(of: storage) { unsafe body(UnsafeRawBufferPointer(rebasing: $0[..<Int(length)])) }
  }

  private func load<Parts>(_: Parts.Type) -> Parts {
    unsafe withUnsafeBytes(of: storage) { unsafe $0.load(as: Parts.self) }
  }

  private func text<Address>(_ address: Address, _ family: CInt) -> String {
    var text = [UInt8](repeating: 0, count: Int(INET6_ADDRSTRLEN))
    unsafe withUnsafeBytes(of: address) { address in
      unsafe text.withUnsafeMutableBytes { buffer in
        _ = unsafe inet_ntop(family, address.baseAddress, buffer.baseAddress, socklen_t(buffer.count))
      }
    }
    return String(decoding: text.prefix { $0 != 0 }, as: UTF8.self)
  }

  /// Turns ::ffff:a.b.c.d into a.b.c.d.
  private mutating func unmapVersion4() {
    guard family == AF_INET6 else { return }
    let parts = load(sockaddr_in6.self)
    let words = unsafe withUnsafeBytes(of: parts.sin6_addr) {
      unsafe $0.load(as: (UInt32, UInt32, UInt32, UInt32).self)
    }
    guard words.0 == 0, words.1 == 0, words.2 == UInt32(0xffff).bigEndian else { return }
    self = SocketAddress(version4: in_addr(s_addr: words.3), port: UInt16(bigEndian: parts.sin6_port))
  }
}
