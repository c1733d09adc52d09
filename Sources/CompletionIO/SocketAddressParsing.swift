// From an address's text to its value. It must never look a name up: numbers, and "localhost".

import CLinux
import Glibc

/// Why a text is not an address, as a sentence for whoever wrote it.
public struct SocketAddressError: Error, Hashable, Sendable, CustomStringConvertible {
  /// What is wrong, and the forms an address may have.
  public let description: String

  init(_ text: String, _ reason: String) {
    description =
      "\"\(text)\": \(reason); an address is \"127.0.0.1:6000\", \"[::1]:6000\", \":6000\" (every interface), "
      + "\"unix:path\" or \"unix:@name\""
  }
}

extension SocketAddress {
  /// Reads `127.0.0.1:6000`, `[::1]:6000`, `localhost:6000`, `:6000` (every interface, version 6 and version 4),
  /// `unix:path` or `unix:@abstract`. Names are not looked up.
  public init(parsing text: String) throws(SocketAddressError) {
    if text.hasPrefix("unix:") {
      self = try Self.parseUnix(text)
      return
    }
    guard let colon = text.lastIndex(of: ":") else { throw SocketAddressError(text, "the port is missing") }
    let host = text[..<colon]
    let port = try Self.parsePort(text[text.index(after: colon)...], of: text)
    if host.isEmpty {
      self.init(version6: in6_addr(), port: port, isEveryInterface: true)
    } else if host.hasPrefix("[") {
      guard host.hasSuffix("]") else { throw SocketAddressError(text, "the closing bracket is missing") }
      self = try Self.parseVersion6(String(host.dropFirst().dropLast()), port: port, of: text)
    } else if host.contains(":") {
      throw SocketAddressError(text, "an IPv6 address needs brackets")
    } else {
      var address = in_addr()
      let numbers = host == "localhost" ? "127.0.0.1" : String(host)
      guard unsafe inet_pton(AF_INET, numbers, &address) == 1 else {
        throw SocketAddressError(text, "\"\(host)\" is not a numeric IPv4 address")
      }
      self.init(version4: address, port: port)
    }
  }

  private static func parseUnix(_ text: String) throws(SocketAddressError) -> SocketAddress {
    var path = Array(text.utf8.dropFirst(5))
    guard !path.isEmpty, path != [UInt8(ascii: "@")] else { throw SocketAddressError(text, "the path is missing") }
    guard !path.contains(0) else { throw SocketAddressError(text, "a path cannot contain a zero byte") }
    if path[0] == UInt8(ascii: "@") { path[0] = 0 }
    guard let address = SocketAddress(unixPath: path) else {
      throw SocketAddressError(text, "the path is longer than the system's \(unixPathMax - 1) bytes")
    }
    return address
  }

  private static func parsePort(_ digits: Substring, of text: String) throws(SocketAddressError) -> UInt16 {
    guard !digits.isEmpty else { throw SocketAddressError(text, "the port is missing") }
    guard digits.utf8.allSatisfy({ (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }), let port = UInt16(digits)
    else { throw SocketAddressError(text, "\"\(digits)\" is not a port from 0 to 65535") }
    return port
  }

  /// An IPv6 address; a link-local one may name its interface after "%".
  private static func parseVersion6(
    _ host: String, port: UInt16, of text: String
  ) throws(SocketAddressError) -> SocketAddress {
    let parts = host.split(separator: "%", maxSplits: 1, omittingEmptySubsequences: false)
    var address = in6_addr()
    guard let numbers = parts.first, unsafe inet_pton(AF_INET6, String(numbers), &address) == 1 else {
      throw SocketAddressError(text, "\"\(host)\" is not a numeric IPv6 address")
    }
    var scope: UInt32 = 0
    if parts.count == 2 {
      scope = unsafe UInt32(parts[1]) ?? if_nametoindex(String(parts[1]))
      guard scope != 0 else { throw SocketAddressError(text, "there is no interface \"\(parts[1])\"") }
    }
    return SocketAddress(version6: address, port: port, scope: scope)
  }
}
