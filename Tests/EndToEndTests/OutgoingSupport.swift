// What the tests of outgoing connections share: a server that runs the Lua it is sent, and a listener that answers nobody.
//
// Must never know: which test uses it.

import Glibc
import TestSupport

/// Handlers that run each line they get as Lua, in which `conn` is the client, and answer with its results: `r(...)` in words.
let runsLines = """
  local function words(...)
    local all = table.pack(...)
    for i = 1, all.n do all[i] = tostring(all[i]) end
    return table.concat(all, " ")
  end
  kept = {}
  function h.on_message(conn, line)
    local f, problem = load("local conn, moonport = ... " .. line, "=line")
    if not f then return conn:send("no Lua: ", problem) end
    conn:send((words(select(2, pcall(f, conn, moonport))):gsub("\\n.*", "")))
  end
  """

/// A listener whose queue of connections is full: a connect to it is neither made nor refused.
final class DeafListener {
  let address: String
  private var descriptors: [Int32] = []

  /// Listens on a loopback address of this family and fills its queue.
  init(version6: Bool = false) throws {
    let listener = socket(version6 ? AF_INET6 : AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    descriptors.append(listener)
    var v4 = sockaddr_in()
    v4.sin_family = sa_family_t(AF_INET)
    v4.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
    var v6 = sockaddr_in6()
    v6.sin6_family = sa_family_t(AF_INET6)
    v6.sin6_addr = in6addr_loopback
    func withAddress(_ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32) -> Int32 {
      version6
        ? withUnsafePointer(to: v6) {
          $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(MemoryLayout<sockaddr_in6>.size)) }
        }
        : withUnsafePointer(to: v4) {
          $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
        }
    }
    guard withAddress({ bind(listener, $0, $1) }) == 0, listen(listener, 0) == 0 else {
      throw TestFailure.call("listen")
    }
    var length = socklen_t(MemoryLayout<sockaddr_in6>.size)
    var bound = sockaddr_in6()
    _ = withUnsafeMutablePointer(to: &bound) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(listener, $0, &length) }
    }
    // The port stands at the same place in both.
    v4.sin_port = bound.sin6_port
    v6.sin6_port = bound.sin6_port
    let port = UInt16(bigEndian: bound.sin6_port)
    address = version6 ? "[::1]:\(port)" : "127.0.0.1:\(port)"
    for _ in 0..<4 {
      let client = socket(version6 ? AF_INET6 : AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue), 0)
      descriptors.append(client)
      _ = withAddress { Glibc.connect(client, $0, $1) }
    }
  }

  var port: Substring { address[address.index(after: address.lastIndex(of: ":")!)...] }

  deinit { for descriptor in descriptors { close(descriptor) } }
}
