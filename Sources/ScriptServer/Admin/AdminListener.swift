// The server's admin socket: made so that no other user can ever connect, removed when the server ends. Must never
// know what the clients ask.

import Glibc

/// The listening admin socket. The owner polls `descriptor`, accepts, and lets only peers in that `isAllowed` names.
package struct AdminListener: Sendable {
  /// Connections that may wait to be accepted: operators and their scripts, not clients.
  private static let backlog: Int32 = 16
  /// How often and how long (in microseconds) to wait for another server that is just opening a socket in the same
  /// folder: two seconds in all, where opening takes well under a millisecond.
  private static let lockAttemptsMax = 200
  private static let lockPauseMicroseconds: UInt32 = 10_000

  /// The listening socket: non-blocking, closed on exec.
  package let descriptor: Int32
  /// The path it is bound to.
  package let path: String
  private let device: UInt64
  private let inode: UInt64

  /// Opens the socket at `path`, readable and writable for this user only.
  ///
  /// A socket file that nobody answers on is replaced; anything else at `path` is left alone and an error, and so is
  /// a server that answers there. Throws a sentence for the operator.
  package static func open(path: String) throws(AdminFailure) -> AdminListener {
    try AdminPath.validate(path)
    let lock = try lockFolder(of: path)
    defer { _ = Glibc.close(lock) }
    try removeStaleSocket(path)
    let descriptor = try AdminSocket.make(nonblocking: true)
    do throws(AdminFailure) {
      return try bind(descriptor, path: path)
    } catch {
      _ = Glibc.close(descriptor)
      throw error
    }
  }

  /// Whether the accepted peer may give orders: this user or root. The mode of the file already keeps others out;
  /// this holds even where someone changed it. See SO_PEERCRED in unix(7).
  package static func isAllowed(peerOf descriptor: Int32) -> Bool {
    guard let userID = AdminSocket.peerUserID(descriptor) else { return false }
    return userID == 0 || userID == geteuid()
  }

  /// Closes the socket and removes its file, unless the file at the path is no longer the one made by `open`.
  package func close() {
    if let facts = Self.facts(path), Self.isSocket(facts), UInt64(facts.st_dev) == device, UInt64(facts.st_ino) == inode
    {
      _ = unsafe unlink(path)
    }
    _ = Glibc.close(descriptor)
  }

  /// Binds and listens. Nobody can connect before listen(2), and the file's mode is 0600 before that: Linux gives the
  /// file the mode of the socket's own inode less the umask, so fchmod(2) on the unbound socket sets it without
  /// touching the umask, which belongs to all threads. What came of it is verified, not assumed.
  private static func bind(_ descriptor: Int32, path: String) throws(AdminFailure) -> AdminListener {
    guard fchmod(descriptor, 0o600) == 0 else {
      throw AdminFailure("cannot restrict the admin socket: \(systemMessage(errno))")
    }
    let bindError = AdminSocket.bind(descriptor, to: path)
    guard bindError == 0 else {
      throw AdminFailure("cannot make the admin socket \(path): \(systemMessage(bindError)); give --admin PATH")
    }
    guard let facts = facts(path), isSocket(facts), facts.st_uid == geteuid(), facts.st_mode & 0o777 == 0o600 else {
      _ = unsafe unlink(path)
      throw AdminFailure("the admin socket \(path) could not be kept to this user; give a path in a private folder")
    }
    guard listen(descriptor, backlog) == 0 else {
      let message = systemMessage(errno)
      _ = unsafe unlink(path)
      throw AdminFailure("cannot listen on the admin socket \(path): \(message)")
    }
    return AdminListener(descriptor: descriptor, path: path, device: UInt64(facts.st_dev), inode: UInt64(facts.st_ino))
  }

  /// Holds other servers off while this one looks for a stale file and binds: a socket that another server has bound
  /// and not yet listened on refuses connections just like a stale one. See flock(2).
  private static func lockFolder(of path: String) throws(AdminFailure) -> Int32 {
    let folder = folder(of: path)
    let descriptor = unsafe Glibc.open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    guard descriptor >= 0 else {
      throw AdminFailure("cannot open \(folder), the folder of the admin socket: \(systemMessage(errno))")
    }
    for _ in 0..<lockAttemptsMax {
      if flock(descriptor, LOCK_EX | LOCK_NB) == 0 { return descriptor }
      guard errno == EWOULDBLOCK || errno == EINTR else { break }
      usleep(lockPauseMicroseconds)
    }
    let message = systemMessage(errno)
    _ = Glibc.close(descriptor)
    throw AdminFailure("cannot lock \(folder), the folder of the admin socket: \(message); give --admin PATH")
  }

  private static func removeStaleSocket(_ path: String) throws(AdminFailure) {
    guard let facts = facts(path) else { return }
    guard isSocket(facts) else {
      throw AdminFailure("\(path) exists and is not a socket, so it is left alone; give another --admin PATH")
    }
    let probe = try AdminSocket.make(nonblocking: true)
    defer { _ = Glibc.close(probe) }
    let error = AdminSocket.connect(probe, to: path)
    // EAGAIN: somebody listens, and its backlog is full.
    guard error != 0, error != EAGAIN else {
      throw AdminFailure("a server already answers at \(path); stop it or give another --admin PATH")
    }
    guard error == ECONNREFUSED else {
      throw AdminFailure(
        "cannot tell whether a server uses \(path): \(systemMessage(error)); give another --admin PATH")
    }
    guard unsafe unlink(path) == 0 || errno == ENOENT else {
      throw AdminFailure("cannot replace the unused socket \(path): \(systemMessage(errno))")
    }
  }

  private static func folder(of path: String) -> String {
    guard let slash = path.lastIndex(of: "/") else { return "." }
    return slash == path.startIndex ? "/" : String(path[..<slash])
  }

  private static func facts(_ path: String) -> stat? {
    var facts = stat()
    return unsafe lstat(path, &facts) == 0 ? facts : nil
  }

  private static func isSocket(_ facts: stat) -> Bool {
    facts.st_mode & S_IFMT == S_IFSOCK
  }
}
