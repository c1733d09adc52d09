// Where the admin socket lies: the rules for its folder and its name. Must never know what is said over it.

import Glibc

/// Where admin sockets are looked for: the surroundings of this process, replaceable in tests.
package struct AdminSurroundings: Sendable {
  /// The value of XDG_RUNTIME_DIR, if set.
  package var runtimeFolder: String?
  /// Where the system keeps each user's runtime folder.
  package var systemRuntimeFolder = "/run/user"
  /// Where a folder is made when the user has no runtime folder.
  package var temporaryFolder = "/tmp"
  /// The effective user; only what this user owns is trusted.
  package var userID: UInt32

  package init(runtimeFolder: String?, userID: UInt32) {
    self.runtimeFolder = runtimeFolder
    self.userID = userID
  }

  /// Those of the running process.
  package static var current: AdminSurroundings {
    unsafe AdminSurroundings(
      runtimeFolder: getenv("XDG_RUNTIME_DIR").map { unsafe String(cString: $0) }, userID: geteuid())
  }
}

/// The rules for the admin socket's path.
package enum AdminPath {
  /// Longest path of a Unix-domain socket in bytes: `sun_path` less its closing zero (unix(7)).
  package static let socketPathBytesMax = 107

  /// The path for a server's own socket: `option` (from `--admin`), or `PID.sock` in the user's private folder,
  /// which is made if it is missing.
  ///
  /// Throws when the path is too long, or the folder is not one that only this user can enter.
  package static func serverPath(
    option: String?, processID: Int32, surroundings: AdminSurroundings
  ) throws(AdminFailure) -> String {
    if let option {
      try validate(option)
      return option
    }
    let folder = defaultFolder(surroundings)
    let path = "\(folder)/\(processID).sock"
    try validate(path)
    try makePrivate(folder, userID: surroundings.userID)
    return path
  }

  /// Throws unless `path` can name a Unix-domain socket.
  package static func validate(_ path: String) throws(AdminFailure) {
    guard !path.isEmpty else { throw AdminFailure("the admin socket's path is empty; give --admin PATH") }
    guard !path.utf8.contains(0) else { throw AdminFailure("the admin socket's path holds a zero byte") }
    guard !path.hasPrefix("@") else {
      throw AdminFailure(
        "\(path) would be an abstract socket, which every user could connect to; give a path (./\(path) for a file) with --admin"
      )
    }
    guard path.utf8.count <= socketPathBytesMax else {
      throw AdminFailure(
        "the admin socket's path is \(path.utf8.count) bytes long, and a Unix-domain socket's path has at most "
          + "\(socketPathBytesMax): \(path); give a shorter one with --admin PATH")
    }
  }

  /// The folder for a server started without `--admin`: the user's runtime folder, or one of our own in /tmp.
  package static func defaultFolder(_ surroundings: AdminSurroundings) -> String {
    for folder in runtimeFolders(surroundings) where isOwnedFolder(folder, userID: surroundings.userID) {
      return folder + "/moonport"
    }
    return temporaryFolder(surroundings)
  }

  /// Every folder in which a server of this user may have put its socket, existing and private ones only. A client
  /// looks in all of them, because server and client may have been started with different surroundings.
  package static func searchedFolders(_ surroundings: AdminSurroundings) -> [String] {
    let all = runtimeFolders(surroundings).map { $0 + "/moonport" } + [temporaryFolder(surroundings)]
    return all.filter { refusal(of: $0, userID: surroundings.userID) == nil }
  }

  /// Makes `folder` with mode 0700 if it is missing; throws unless it then is a folder of this user and mode 0700,
  /// and no symbolic link, since anybody may have put one there before us in /tmp.
  package static func makePrivate(_ folder: String, userID: UInt32) throws(AdminFailure) {
    if unsafe mkdir(folder, 0o700) != 0, errno != EEXIST {
      throw AdminFailure("cannot make the folder \(folder): \(systemMessage(errno)); give --admin PATH")
    }
    if let reason = refusal(of: folder, userID: userID) {
      throw AdminFailure(
        "the folder \(folder) is refused for the admin socket: \(reason); remove it or give --admin PATH")
    }
  }

  /// Why `folder` is not private to this user, nil if it is.
  package static func refusal(of folder: String, userID: UInt32) -> String? {
    var facts = stat()
    guard unsafe lstat(folder, &facts) == 0 else { return systemMessage(errno) }
    let kind = facts.st_mode & S_IFMT
    if kind == S_IFLNK { return "it is a symbolic link" }
    if kind != S_IFDIR { return "it is not a folder" }
    if facts.st_uid != userID { return "it belongs to user \(facts.st_uid), not to \(userID)" }
    let mode = facts.st_mode & 0o777
    if mode != 0o700 { return "its mode is 0\(String(mode, radix: 8)), not 0700" }
    return nil
  }

  private static func runtimeFolders(_ surroundings: AdminSurroundings) -> [String] {
    var folders: [String] = []
    if let given = surroundings.runtimeFolder, given.hasPrefix("/") { folders.append(withoutTrailingSlashes(given)) }
    let system = "\(surroundings.systemRuntimeFolder)/\(surroundings.userID)"
    if !folders.contains(system) { folders.append(system) }
    return folders
  }

  private static func temporaryFolder(_ surroundings: AdminSurroundings) -> String {
    "\(surroundings.temporaryFolder)/moonport-\(surroundings.userID)"
  }

  private static func withoutTrailingSlashes(_ path: String) -> String {
    var path = path[...]
    while path.count > 1, path.hasSuffix("/") { path.removeLast() }
    return String(path)
  }

  private static func isOwnedFolder(_ folder: String, userID: UInt32) -> Bool {
    var facts = stat()
    guard unsafe stat(folder, &facts) == 0 else { return false }
    return facts.st_mode & S_IFMT == S_IFDIR && facts.st_uid == userID
  }
}
