// Names to addresses by the system's own resolver, and literal addresses without it. It must never be called on a thread
// that has anything else to do: a look-up may take as long as its name servers like.

import CLinux
import Glibc

/// Why a name has no addresses.
public enum HostLookupFailure: Error, Hashable, Sendable {
  /// There is no such name, or it has no address.
  case notFound
  /// No name server answered in the resolver's own time.
  case noAnswer
  /// The system had no memory or descriptors for the look-up.
  case exhausted
}

extension SocketAddress {
  /// A literal IPv4 address, or an IPv6 one without brackets, with a port; nil for anything else, such as a name.
  public init?(host: String, port: UInt16) {
    if host.utf8.contains(0) { return nil }
    var version4 = in_addr()
    if unsafe inet_pton(AF_INET, host, &version4) == 1 {
      self.init(version4: version4, port: port)
    } else if host.utf8.contains(UInt8(ascii: ":")), let address = try? SocketAddress(parsing: "[\(host)]:\(port)") {
      self = address
    } else {
      return nil
    }
  }

  /// The addresses of a name in the order to try them in, by /etc/hosts, name servers and whatever else the system is set
  /// up to ask. Waits for them. getaddrinfo(3).
  public static func lookUp(_ host: String, port: UInt16) throws(HostLookupFailure) -> [SocketAddress] {
    if host.isEmpty || host.utf8.contains(0) { throw .notFound }
    var hints = unsafe addrinfo()
    unsafe hints.ai_family = AF_UNSPEC
    unsafe hints.ai_socktype = CInt(SOCK_STREAM.rawValue)
    var list: UnsafeMutablePointer<addrinfo>?
    let result = unsafe getaddrinfo(host, nil, &hints, &list)
    guard result == 0 else {
      switch result {
      case EAI_AGAIN: throw .noAnswer
      case EAI_MEMORY, EAI_SYSTEM: throw .exhausted
      default: throw .notFound
      }
    }
    defer { unsafe freeaddrinfo(list) }
    var addresses: [SocketAddress] = []
    var next = unsafe list
    while let entry = unsafe next {
      unsafe next = unsafe entry.pointee.ai_next
      guard let address = unsafe SocketAddress(entry.pointee, port: port), !addresses.contains(address) else {
        continue
      }
      addresses.append(address)
    }
    if addresses.isEmpty { throw .notFound }
    return addresses
  }

  /// An IPv4 or IPv6 address as getaddrinfo(3) gives it.
  private init?(_ entry: addrinfo, port: UInt16) {
    guard let source = unsafe entry.ai_addr, unsafe entry.ai_addrlen <= MemoryLayout<sockaddr_storage>.size else {
      return nil
    }
    switch unsafe entry.ai_family {
    case AF_INET:
      let parts = unsafe UnsafeRawPointer(source).loadUnaligned(as: sockaddr_in.self)
      self.init(version4: parts.sin_addr, port: port)
    case AF_INET6:
      let parts = unsafe UnsafeRawPointer(source).loadUnaligned(as: sockaddr_in6.self)
      self.init(version6: parts.sin6_addr, port: port, scope: parts.sin6_scope_id)
    default: return nil
    }
  }
}
