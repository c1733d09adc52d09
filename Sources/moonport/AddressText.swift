// The text of an address, taken apart: `host:port`, `[v6]:port`, `:port`, `unix:path`. For connecting; the
// server has a parser of its own. Pure; must never look a name up
// or open a socket.

import Glibc

/// Why a text is no address, as a sentence for the operator.
package struct AddressError: Error, Equatable {
  package let message: String
}

/// An address as typed, its form checked.
package enum AddressText: Equatable {
  /// A host (a name or a number; empty in `:port`) and a port.
  case internet(host: String, port: UInt16)
  /// A Unix-domain socket; a path that begins with `@` is an abstract name (unix(7)).
  case unix(path: String)

  /// Longest path of a Unix-domain socket in bytes: `sun_path` less its closing zero (unix(7)).
  static let unixPathBytesMax = 107
  /// Longest host name in bytes, as in the domain name system (RFC 1035, 2.3.4).
  static let hostBytesMax = 253

  /// Takes `text` apart; throws what is wrong with it and what is expected.
  package init(_ text: String) throws(AddressError) {
    if text.hasPrefix("unix:") {
      self = try Self.unixAddress(String(text.dropFirst("unix:".count)), in: text)
    } else if text.hasPrefix("[") {
      self = try Self.bracketed(text)
    } else {
      self = try Self.plain(text)
    }
  }

  /// Throws unless a client can connect there: port 0 is no port.
  package func checkForConnecting() throws(AddressError) {
    if case .internet(_, port: 0) = self { throw AddressError(message: "the port to connect to is 1 to 65535, not 0") }
  }

  private static func unixAddress(_ path: String, in text: String) throws(AddressError) -> AddressText {
    guard !path.isEmpty else { throw AddressError(message: "\"\(text)\" lacks the path after unix:") }
    guard !path.utf8.contains(0) else { throw AddressError(message: "the path after unix: holds a zero byte") }
    guard path.utf8.count <= unixPathBytesMax else {
      throw AddressError(
        message: "the path after unix: is \(path.utf8.count) bytes long, \(unixPathBytesMax) is the most: \(path)")
    }
    return .unix(path: path)
  }

  private static func bracketed(_ text: String) throws(AddressError) -> AddressText {
    guard let end = text.firstIndex(of: "]") else {
      throw AddressError(message: "\"\(text)\" lacks the bracket that closes the IPv6 address, as in [::1]:6000")
    }
    let host = String(text[text.index(after: text.startIndex)..<end])
    guard isNumericV6(host) else { throw AddressError(message: "\"\(host)\" is not an IPv6 address") }
    let rest = text[text.index(after: end)...]
    guard rest.first == ":" else { throw AddressError(message: "\"\(text)\" lacks its port, as in [::1]:6000") }
    return .internet(host: host, port: try port(rest.dropFirst(), in: text))
  }

  private static func plain(_ text: String) throws(AddressError) -> AddressText {
    guard let colon = text.lastIndex(of: ":") else {
      throw AddressError(message: "\"\(text)\" lacks its port; an address is HOST:PORT, [V6]:PORT, :PORT or unix:PATH")
    }
    let host = String(text[..<colon])
    guard !host.contains(":") else {
      throw AddressError(message: "\"\(text)\": an IPv6 address goes in brackets, as in [::1]:6000")
    }
    guard host.utf8.count <= hostBytesMax, host.utf8.allSatisfy({ $0 > 0x20 && $0 != 0x7F }) else {
      throw AddressError(message: "\"\(host)\" is not a host name")
    }
    return .internet(host: host, port: try port(text[text.index(after: colon)...], in: text))
  }

  private static func port(_ digits: Substring, in text: String) throws(AddressError) -> UInt16 {
    // Digits alone: UInt16's own parser would take "+80".
    guard digits.utf8.allSatisfy({ $0 >= UInt8(ascii: "0") && $0 <= UInt8(ascii: "9") }), let port = UInt16(digits)
    else { throw AddressError(message: "\"\(text)\": a port is a number from 0 to 65535, not \"\(digits)\"") }
    return port
  }

  /// A scope (`fe80::1%eth0`) may follow the number; whether its interface exists is seen when it is used.
  private static func isNumericV6(_ host: String) -> Bool {
    var address = in6_addr()
    let number = host.split(separator: "%", maxSplits: 1, omittingEmptySubsequences: false).first.map(String.init) ?? ""
    return unsafe inet_pton(AF_INET6, number, &address) == 1
  }
}
