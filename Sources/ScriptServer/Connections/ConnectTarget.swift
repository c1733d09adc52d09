// What a script asks to be connected to, from its text. It must never look a name up.

import CompletionIO

/// Where `moonport.connect` is to go.
enum ConnectTarget: Equatable {
  /// Addresses to try in turn.
  case addresses([SocketAddress])
  /// A name whose addresses have to be looked up, and a port.
  case name(String, port: UInt16)

  /// The longest name there can be, RFC 1035.
  private static let nameBytesMax = 253

  /// Reads `host:port`, `127.0.0.1:port`, `[::1]:port`, `:port` (this machine) or `unix:path`.
  init(parsing text: String) throws(ConnectTargetError) {
    if text.hasPrefix("unix:") || text.hasPrefix("[") {
      do throws(SocketAddressError) {
        self = .addresses([try SocketAddress(parsing: text)])
      } catch { throw ConnectTargetError(description: "\(error)") }
      if text.hasPrefix("["), case .addresses(let addresses) = self, addresses[0].port == 0 { throw .port(text) }
      return
    }
    guard let colon = text.utf8.lastIndex(of: UInt8(ascii: ":")) else { throw .form(text, "the port is missing") }
    let host = String(text[..<colon])
    let digits = text[text.index(after: colon)...]
    guard !digits.isEmpty, digits.utf8.allSatisfy({ (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }),
      let port = UInt16(digits), port > 0
    else { throw .port(text) }
    if host.isEmpty {
      // As ":port" listens on every interface, it connects to this machine.
      self = .addresses(["::1", "127.0.0.1"].compactMap { SocketAddress(host: $0, port: port) })
    } else if host.utf8.contains(UInt8(ascii: ":")) {
      throw .form(text, "an IPv6 address needs brackets")
    } else if let address = SocketAddress(host: host, port: port) {
      self = .addresses([address])
    } else if host.utf8.count > Self.nameBytesMax || host.utf8.contains(0) {
      throw .form(text, "the host is no name")
    } else {
      self = .name(host, port: port)
    }
  }
}

/// Why a text is nothing to connect to, as a sentence for whoever wrote it.
struct ConnectTargetError: Error, CustomStringConvertible {
  let description: String

  static func form(_ text: String, _ reason: String) -> ConnectTargetError {
    ConnectTargetError(
      description:
        "\"\(text)\": \(reason); an address is \"host:port\", \"127.0.0.1:6000\", \"[::1]:6000\", \":6000\" (this machine), "
        + "\"unix:path\" or \"unix:@name\"")
  }

  static func port(_ text: String) -> ConnectTargetError { form(text, "the port is not a number from 1 to 65535") }
}
