// `--user`: a server that root starts becomes somebody else, for good and in all threads, and what it makes is that user's. Most
// of these tests need root, and say so where they are skipped.
//
// Must never know: anything but the program's command line, its streams and its sockets, and what the kernel tells.

import Glibc
import TestSupport
import Testing

private let isRoot = geteuid() == 0

@Suite struct UserTests {
  private static let name = "nobody"

  private static let body = """
    moonport.listen { address = "127.0.0.1:0", codec = "line" }
    local handlers = {}
    function handlers.on_message(conn, text)
      local file, problem = io.open(text, "r")
      conn:send(file and "open" or problem)
    end
    return handlers
    """

  /// A folder that the user owns, with the script in it.
  private func ownFolder(_ script: String = "local moonport = require 'moonport'\n" + body) throws -> TemporaryFolder {
    let folder = try TemporaryFolder()
    try folder.write("main.lua", script)
    let user = try #require(getpwnam(UserTests.name)).pointee
    guard chown(folder.path, user.pw_uid, user.pw_gid) == 0 else { throw TestFailure.call("chown") }
    return folder
  }

  private func serve(_ folder: TemporaryFolder, listeners: Int = 1) throws -> MoonportProcess {
    try MoonportProcess(file: folder.file("main.lua"), folder: folder) {
      $0.listeners = listeners
      $0.workers = 2
      $0.arguments = ["--user", UserTests.name]
    }
  }

  /// The values of a line of proc(5)'s status, one for each thread.
  private func everyThreads(_ name: String, of server: MoonportProcess) throws -> [[Substring]] {
    try server.threadStatuses().map { status in
      let line = status.split(separator: "\n").first { $0.hasPrefix("\(name):") } ?? ""
      return line.dropFirst(name.count + 1).split { $0 == "\t" || $0 == " " }
    }
  }

  @Test(.enabled(if: isRoot, "only root can become another user"))
  func `the server becomes the user in every thread, with the user's groups, no capability, and no way back`() throws {
    let server = try serve(ownFolder())
    let user = try #require(getpwnam(UserTests.name)).pointee
    let userID = Substring(String(user.pw_uid))
    let groupID = Substring(String(user.pw_gid))
    let users = try everyThreads("Uid", of: server)
    #expect(users.count >= 4)
    for ids in users { #expect(ids == [userID, userID, userID, userID]) }
    for ids in try everyThreads("Gid", of: server) { #expect(ids == [groupID, groupID, groupID, groupID]) }
    for groups in try everyThreads("Groups", of: server) { #expect(!groups.contains("0")) }
    for set in ["CapPrm", "CapEff", "CapAmb"] {
      for bits in try everyThreads(set, of: server) { #expect(bits == ["0000000000000000"]) }
    }
    let client = try server.connect()
    #expect(try client.ask("/etc/shadow") == "/etc/shadow: Permission denied")
    #expect(try client.ask("/etc/passwd") == "open")
    client.close()
    try server.stop()
  }

  @Test(.enabled(if: isRoot, "only root can become another user"))
  func `the admin socket is the user's own, and the server removes it and its socket files at its end`() throws {
    let folder = try TemporaryFolder()
    let script = "local moonport = require 'moonport'\nmoonport.listen { address = 'unix:\(folder.file("s"))' }\n"
    try folder.write("main.lua", script + UserTests.body)
    let user = try #require(getpwnam(UserTests.name)).pointee
    _ = chown(folder.path, user.pw_uid, user.pw_gid)
    let server = try serve(folder, listeners: 2)
    for path in [server.adminPath, folder.file("s")] {
      var facts = stat()
      #expect(lstat(path, &facts) == 0 && facts.st_uid == user.pw_uid)
    }
    #expect(try server.status()["generation"].integer == 1, "root may give orders too")
    try server.stop()
    #expect(access(server.adminPath, F_OK) != 0 && access(folder.file("s"), F_OK) != 0)
  }

  @Test(.enabled(if: isRoot && privilegedPort() != nil, "needs root, and a port that only root may have"))
  func
    `a privileged port is bound at the start; a reload that wants another fails and says why, and the old code stays`()
    throws
  {
    let port = try #require(privilegedPort())
    let text = "local moonport = require 'moonport'\n"
    let folder = try ownFolder(
      text + "moonport.listen { address = '127.0.0.1:\(port)', codec = 'line' }\n" + UserTests.body)
    let server = try serve(folder, listeners: 2)
    #expect(server.addresses.contains("127.0.0.1:\(port)"))
    try server.replaceScript(
      text + "moonport.listen { address = '127.0.0.1:\(port)', codec = 'line' }\n"
        + "moonport.listen { address = '127.0.0.2:\(port)', codec = 'line' }\n" + UserTests.body)
    let problem = try server.refused("reload")
    #expect(contains(problem, "main.lua:3: cannot listen on 127.0.0.2:\(port): Permission denied"), "\(problem)")
    #expect(contains(problem, "the server has become \(UserTests.name) (--user)"), "\(problem)")
    #expect(try server.connect().ask("/etc/passwd") == "open")
  }

  @Test(.enabled(if: isRoot, "only root can become another user"))
  func `the script's own loading is the user's already: what the user may not read, it cannot read`() throws {
    let folder = try ownFolder("assert(io.open('/etc/shadow'))\n" + UserTests.body)
    let result = try MoonportProcess.runTool(["run", folder.file("main.lua"), "--user", UserTests.name])
    #expect(result.status == .exited(1))
    #expect(contains(result.errors, "/etc/shadow: Permission denied"), "\(result)")
  }

  @Test(.enabled(if: isRoot, "only root can become another user"))
  func `a user that does not exist, root itself, and a folder that the user may not write are errors at the start`()
    throws
  {
    let folder = try ownFolder()
    let other = try TemporaryFolder()
    for (user, admin, problem) in [
      ("no-such-user", "a", "--user no-such-user: there is no such user"), ("root", "a", "--user root: that is root"),
      (UserTests.name, other.file("a"), "cannot open \(other.path), the folder of the admin socket: Permission denied"),
    ] {
      let path = admin.hasPrefix("/") ? admin : folder.file(admin)
      let result = try MoonportProcess.runTool(["run", folder.file("main.lua"), "--user", user, "--admin", path])
      #expect(result.status == .exited(1) && contains(result.errors, problem), "\(result)")
    }
  }

  @Test(.enabled(if: isRoot, "only root can start a server as somebody else"))
  func `a server that is not root's refuses --user`() throws {
    let folder = try ownFolder()
    // A shell that becomes the user first.
    let shell = "exec setpriv --reuid=\(UserTests.name) --regid=nogroup --clear-groups \"$0\" \"$@\""
    let child = try ChildProcess(
      Launch(
        "/bin/sh",
        ["-c", shell, try MoonportProcess.executable(), "run", folder.file("main.lua"), "--user", UserTests.name]))
    #expect(try child.waitForExit() == .exited(1))
    #expect(contains(child.errors.text, "only a server that root starts can become another user"))
  }

  @Test func `an abstract admin socket is refused, since every user could connect to it`() throws {
    for command in [["run", "x.lua"], ["status"]] {
      let result = try MoonportProcess.runTool(command + ["--admin", "@name"])
      #expect(result.status == .exited(64) && contains(result.errors, "abstract"), "\(result)")
    }
  }
}

/// A port of the loopback that only root may bind and nobody has; nil where every port is open to all.
private func privilegedPort() -> Int? {
  guard let text = try? readSmallFile("/proc/sys/net/ipv4/ip_unprivileged_port_start"),
    let first = Int(text.filter { $0.isNumber }), first > 1000
  else { return nil }
  return 700 + Int(getpid()) % 300
}
