// Finds the running servers of this user when no path is given. Must never know what is to be asked of them.

import Glibc

/// Looks for admin sockets in the user's private folders.
package enum AdminDiscovery {
  /// Most directory entries looked at per folder: far over the servers that one user runs.
  private static let entriesMax = 4096

  /// The path to talk to: `option` (from `--admin`) if given, else that of the only running server.
  ///
  /// Throws when none or several run; the message then lists them.
  package static func path(option: String?, surroundings: AdminSurroundings) throws(AdminFailure) -> String {
    if let option {
      try AdminPath.validate(option)
      return option
    }
    let running = runningServers(surroundings)
    guard let first = running.first else {
      throw AdminFailure("no moonport server is running for this user; give --admin PATH")
    }
    guard running.count > 1 else { return first }
    let list = running.map { "  --admin \($0)   \(description(of: $0))" }.joined(separator: "\n")
    throw AdminFailure("\(running.count) moonport servers are running for this user; choose one:\n\(list)")
  }

  /// The sockets on which a server answers, in order of process id. A socket left by a process that has ended is
  /// removed.
  package static func runningServers(_ surroundings: AdminSurroundings) -> [String] {
    var found: [(processID: Int32, path: String)] = []
    for folder in AdminPath.searchedFolders(surroundings) {
      for name in names(in: folder) {
        guard let processID = processID(ofSocketNamed: name) else { continue }
        let path = "\(folder)/\(name)"
        if answers(path, processID: processID) { found.append((processID, path)) }
      }
    }
    return found.sorted { $0.processID < $1.processID }.map(\.path)
  }

  /// The process id in `PID.sock`, nil for other names.
  package static func processID(ofSocketNamed name: String) -> Int32? {
    guard name.hasSuffix(".sock") else { return nil }
    let digits = name.dropLast(".sock".count)
    guard digits.utf8.allSatisfy({ $0 >= UInt8(ascii: "0") && $0 <= UInt8(ascii: "9") }) else { return nil }
    guard let processID = Int32(digits), processID > 0 else { return nil }
    return processID
  }

  private static func answers(_ path: String, processID: Int32) -> Bool {
    guard (try? AdminPath.validate(path)) != nil, let probe = try? AdminSocket.make(nonblocking: true) else {
      return false
    }
    defer { _ = close(probe) }
    let error = AdminSocket.connect(probe, to: path)
    // A server that is just starting refuses too, between bind(2) and listen(2): its process lives, so it stays.
    if error == ECONNREFUSED, kill(processID, 0) != 0, errno == ESRCH { _ = unsafe unlink(path) }
    return error == 0 || error == EAGAIN
  }

  private static func description(of path: String) -> String {
    let reply = try? AdminClient.exchange(.ping, path: path, timeoutSeconds: AdminClient.pingTimeoutSeconds)
    guard let reply, reply.status == 0, let ping = AdminPing(text: reply.text) else { return "(does not answer)" }
    return "pid \(ping.processID), \(ping.script)"
  }

  private static func names(in folder: String) -> [String] {
    guard let handle = unsafe opendir(folder) else { return [] }
    defer { _ = unsafe closedir(handle) }
    var names: [String] = []
    while names.count < entriesMax, let entry = unsafe readdir(handle) {
      let name = unsafe withUnsafePointer(to: &entry.pointee.d_name) { tuple in
        unsafe tuple.withMemoryRebound(to: CChar.self, capacity: 1) { unsafe String(cString: $0) }
      }
      names.append(name)
    }
    return names
  }
}
