// What the command line may ask of `--listen`, before a server exists. Must never open a socket.

import CompletionIO

/// The address of `--listen`.
package enum ListenOverride {
  /// What is wrong with `text` as an address to listen on, as a sentence for the operator; nil when nothing is.
  package static func problem(with text: String) -> String? {
    do throws(SocketAddressError) {
      _ = try SocketAddress(parsing: text)
      return nil
    } catch {
      return error.description
    }
  }
}
