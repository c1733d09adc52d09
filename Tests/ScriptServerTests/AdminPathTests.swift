// Where the admin socket may lie, who may connect to it, and how a client finds it.

import Glibc
import ScriptServer
import Testing

/// A folder of the test's own, removed at its end.
private final class Scratch {
  let path: String

  init() throws {
    var template = Array("/tmp/moonport-test-XXXXXX".utf8CString)
    path = try #require(mkdtemp(&template).map { String(cString: $0) })
  }

  deinit {
    Self.remove(path)
  }

  /// Surroundings inside this folder: nothing outside it is looked at.
  func surroundings(runtime: Bool) -> AdminSurroundings {
    var surroundings = AdminSurroundings(runtimeFolder: runtime ? path + "/run" : nil, userID: geteuid())
    surroundings.systemRuntimeFolder = path + "/system"
    surroundings.temporaryFolder = path
    if runtime { mkdir(path + "/run", 0o700) }
    return surroundings
  }

  private static func remove(_ path: String) {
    if let folder = opendir(path) {
      while let entry = readdir(folder) {
        let name = withUnsafePointer(to: &entry.pointee.d_name) {
          $0.withMemoryRebound(to: CChar.self, capacity: 1) { String(cString: $0) }
        }
        if name != ".", name != ".." { remove(path + "/" + name) }
      }
      closedir(folder)
      rmdir(path)
    } else {
      unlink(path)
    }
  }
}

private func mode(_ path: String) -> mode_t? {
  var facts = stat()
  return lstat(path, &facts) == 0 ? facts.st_mode & 0o777 : nil
}

/// A server on its own thread that answers every request with its words, until its listener is closed.
private final class EchoServer: @unchecked Sendable {
  let listener: AdminListener
  private var thread = pthread_t()
  private let script: String
  /// What is answered instead of the words, raw: to play a server that breaks.
  private let raw: [UInt8]?

  init(_ path: String, script: String = "chat.lua", raw: [UInt8]? = nil) throws {
    listener = try AdminListener.open(path: path)
    self.script = script
    self.raw = raw
    let box = Unmanaged.passRetained(self)
    pthread_create(
      &thread, nil,
      {
        Unmanaged<EchoServer>.fromOpaque($0!).takeRetainedValue().serve(); return nil
      }, box.toOpaque())
  }

  func stop() {
    shutdown(listener.descriptor, Int32(SHUT_RDWR))
    pthread_join(thread, nil)
    listener.close()
  }

  private func serve() {
    while true {
      var entry = pollfd(fd: listener.descriptor, events: Int16(POLLIN), revents: 0)
      poll(&entry, 1, -1)
      // `stop` shut the listener down; accept(2) on it would say EAGAIN for ever.
      if entry.revents & Int16(POLLHUP) != 0 { return }
      let client = accept(listener.descriptor, nil, nil)
      if client < 0 {
        if errno == EAGAIN || errno == EINTR { continue }
        return
      }
      if AdminListener.isAllowed(peerOf: client) { answer(client) }
      close(client)
    }
  }

  private func answer(_ client: Int32) {
    var session = AdminSession()
    var chunk = [UInt8](repeating: 0, count: 4096)
    while true {
      let count = recv(client, &chunk, chunk.count, 0)
      guard count > 0 else { return }
      switch session.receive(chunk[..<count]) {
      case .incomplete, .ignored: continue
      case .refused(let bytes): return write(bytes, client)
      case .request(let request):
        let text =
          request == .ping ? AdminPing(processID: getpid(), script: script).text : request.words.joined(separator: "|")
        let reply = session.reply(AdminReply(status: request == .rollback ? 1 : 0, text: text))
        return write(raw ?? reply, client)
      }
    }
  }

  private func write(_ bytes: [UInt8], _ client: Int32) {
    var sent = 0
    while sent < bytes.count {
      let count = bytes.withUnsafeBytes {
        send(client, $0.baseAddress! + sent, bytes.count - sent, Int32(MSG_NOSIGNAL))
      }
      guard count > 0 else { return }
      sent += count
    }
  }
}

@Suite("AdminPath")
struct AdminPathTests {
  @Test("--admin wins over every rule")
  func option() throws {
    let scratch = try Scratch()
    let path = try AdminPath.serverPath(option: "/a/b", processID: 1, surroundings: scratch.surroundings(runtime: true))
    #expect(path == "/a/b")
  }

  @Test("the default is PID.sock in a 0700 folder of the user's runtime folder")
  func runtimeFolder() throws {
    let scratch = try Scratch()
    let surroundings = scratch.surroundings(runtime: true)
    let path = try AdminPath.serverPath(option: nil, processID: 42, surroundings: surroundings)
    #expect(path == scratch.path + "/run/moonport/42.sock")
    #expect(mode(scratch.path + "/run/moonport") == 0o700)
    #expect(try AdminPath.serverPath(option: nil, processID: 43, surroundings: surroundings).hasSuffix("/43.sock"))
  }

  @Test("without a runtime folder of our own the system's is taken, then a private folder in /tmp")
  func fallbacks() throws {
    let scratch = try Scratch()
    var surroundings = scratch.surroundings(runtime: false)
    surroundings.runtimeFolder = scratch.path + "/missing"
    #expect(AdminPath.defaultFolder(surroundings) == "\(scratch.path)/moonport-\(geteuid())")
    mkdir(scratch.path + "/system", 0o755)
    mkdir(scratch.path + "/system/\(geteuid())", 0o700)
    #expect(AdminPath.defaultFolder(surroundings) == "\(scratch.path)/system/\(geteuid())/moonport")
    surroundings.runtimeFolder = "relative/folder"
    #expect(AdminPath.defaultFolder(surroundings).hasPrefix("/"))
  }

  @Test("a folder that others can enter, a symbolic link, a file and another user's folder are refused")
  func refusals() throws {
    let scratch = try Scratch()
    let me = geteuid()
    mkdir(scratch.path + "/open", 0o700)
    chmod(scratch.path + "/open", 0o755)
    mkdir(scratch.path + "/private", 0o700)
    symlink(scratch.path + "/private", scratch.path + "/link")
    close(open(scratch.path + "/file", O_CREAT | O_WRONLY, 0o600))
    for name in ["open", "link", "file"] {
      #expect(throws: AdminFailure.self) { try AdminPath.makePrivate(scratch.path + "/" + name, userID: me) }
    }
    #expect(AdminPath.refusal(of: scratch.path + "/private", userID: me) == nil)
    #expect(AdminPath.refusal(of: scratch.path + "/private", userID: me &+ 1)?.contains("belongs to user") == true)
    #expect(throws: AdminFailure.self) { try AdminPath.makePrivate(scratch.path + "/no/parent", userID: me) }
  }

  @Test("a path that sun_path cannot hold is an error that says how long it may be")
  func length() throws {
    try AdminPath.validate("/" + String(repeating: "a", count: 106))
    let failure = #expect(throws: AdminFailure.self) {
      try AdminPath.validate("/" + String(repeating: "a", count: 107))
    }
    #expect(failure?.message.contains("108 bytes") == true && failure?.message.contains("107") == true)
    #expect(throws: AdminFailure.self) { try AdminPath.validate("") }
    #expect(throws: AdminFailure.self) { try AdminPath.validate("a\0b") }
  }
}

@Suite("AdminListener")
struct AdminListenerTests {
  @Test("the socket file has mode 0600 even under an open umask, and is removed on close")
  func modeAndRemoval() throws {
    let scratch = try Scratch()
    let path = scratch.path + "/a.sock"
    let before = umask(0)
    defer { umask(before) }
    let listener = try AdminListener.open(path: path)
    #expect(mode(path) == 0o600)
    listener.close()
    #expect(mode(path) == nil)
  }

  @Test("a socket that a server answers on is left alone")
  func inUse() throws {
    let scratch = try Scratch()
    let path = scratch.path + "/a.sock"
    let listener = try AdminListener.open(path: path)
    defer { listener.close() }
    let failure = #expect(throws: AdminFailure.self) { _ = try AdminListener.open(path: path) }
    #expect(failure?.message.contains("already answers") == true)
    #expect(mode(path) == 0o600)
  }

  @Test("a socket left by a server that has ended is replaced, and the old server's close leaves the new one alone")
  func stale() throws {
    let scratch = try Scratch()
    let path = scratch.path + "/a.sock"
    let old = try AdminListener.open(path: path)
    // Nobody listens any more, as after a crash; the file stays.
    shutdown(old.descriptor, Int32(SHUT_RDWR))
    let new = try AdminListener.open(path: path)
    old.close()
    #expect(mode(path) == 0o600)
    new.close()
    #expect(mode(path) == nil)
  }

  @Test("a file that is no socket is left alone")
  func file() throws {
    let scratch = try Scratch()
    let path = scratch.path + "/precious"
    close(open(path, O_CREAT | O_WRONLY, 0o644))
    #expect(throws: AdminFailure.self) { _ = try AdminListener.open(path: path) }
    #expect(mode(path) == 0o644)
  }

  @Test("a missing folder is an error that names it")
  func missingFolder() throws {
    let failure = #expect(throws: AdminFailure.self) { _ = try AdminListener.open(path: "/nowhere/at/all.sock") }
    #expect(failure?.message.contains("/nowhere/at") == true)
  }

  @Test("a client's request is answered, and its reply's status comes through")
  func exchange() throws {
    let scratch = try Scratch()
    let server = try EchoServer(scratch.path + "/a.sock")
    defer { server.stop() }
    let reply = try AdminClient.exchange(.kick(id: 7), path: server.listener.path, timeoutSeconds: nil)
    #expect(reply == AdminReply(status: 0, text: "kick|7"))
    #expect(try AdminClient.exchange(.rollback, path: server.listener.path, timeoutSeconds: 30).status == 1)
    #expect(try AdminClient.exchange(.stop, path: server.listener.path, timeoutSeconds: nil).text == "stop")
    let text = String(repeating: "x", count: 1_000_000)
    let long = try AdminClient.exchange(
      .broadcast(text: text, room: "r"), path: server.listener.path, timeoutSeconds: 30)
    #expect(long.text.count == 1_000_012)
  }

  @Test("a server that says nothing, nonsense or half a reply is an error, except where it was told to end")
  func brokenServers() throws {
    let scratch = try Scratch()
    for (index, raw) in [[], Array("HTTP/1.1 400".utf8), Array("10:1:0,4:ab".utf8)].enumerated() {
      let server = try EchoServer(scratch.path + "/\(index).sock", raw: raw)
      defer { server.stop() }
      #expect(throws: AdminFailure.self) {
        _ = try AdminClient.exchange(.reload, path: server.listener.path, timeoutSeconds: nil)
      }
      if raw.isEmpty {
        #expect(try AdminClient.exchange(.stop, path: server.listener.path, timeoutSeconds: nil).status == 0)
      }
    }
  }

  @Test("a missing socket, a dead one and a server that does not answer in time are errors that say so")
  func unreachable() throws {
    let scratch = try Scratch()
    let missing = #expect(throws: AdminFailure.self) {
      _ = try AdminClient.exchange(.ping, path: scratch.path + "/none", timeoutSeconds: 1)
    }
    #expect(missing?.message.contains("there is no admin socket") == true)
    let listener = try AdminListener.open(path: scratch.path + "/a.sock")
    defer { listener.close() }
    let silent = #expect(throws: AdminFailure.self) {
      _ = try AdminClient.exchange(.ping, path: listener.path, timeoutSeconds: 0.01)
    }
    #expect(silent?.message.contains("did not answer") == true)
    shutdown(listener.descriptor, Int32(SHUT_RDWR))
    let dead = #expect(throws: AdminFailure.self) {
      _ = try AdminClient.exchange(.ping, path: listener.path, timeoutSeconds: 1)
    }
    #expect(dead?.message.contains("no server answers") == true)
  }
}

@Suite("AdminDiscovery")
struct AdminDiscoveryTests {
  @Test("only PID.sock is a server's socket")
  func names() {
    #expect(AdminDiscovery.processID(ofSocketNamed: "42.sock") == 42)
    for name in ["0.sock", "-1.sock", "+1.sock", "a.sock", "42", ".sock", "99999999999.sock", "42.sock.tmp"] {
      #expect(AdminDiscovery.processID(ofSocketNamed: name) == nil)
    }
  }

  @Test("no server: says so; one: found by itself; several: listed with pid and script")
  func servers() throws {
    let scratch = try Scratch()
    let surroundings = scratch.surroundings(runtime: true)
    let none = #expect(throws: AdminFailure.self) {
      _ = try AdminDiscovery.path(option: nil, surroundings: surroundings)
    }
    #expect(none?.message == "no moonport server is running for this user; give --admin PATH")

    let path = try AdminPath.serverPath(option: nil, processID: 1, surroundings: surroundings)
    let one = try EchoServer(path, script: "one.lua")
    #expect(try AdminDiscovery.path(option: nil, surroundings: surroundings) == path)
    #expect(try AdminDiscovery.path(option: "/x", surroundings: surroundings) == "/x")

    // The other server was started without XDG_RUNTIME_DIR.
    let other = try AdminPath.serverPath(
      option: nil, processID: getpid(), surroundings: scratch.surroundings(runtime: false))
    let two = try EchoServer(other, script: "two.lua")
    let several = #expect(throws: AdminFailure.self) {
      _ = try AdminDiscovery.path(option: nil, surroundings: surroundings)
    }
    #expect(several?.message.contains("2 moonport servers") == true)
    for part in ["--admin \(path)   pid \(getpid()), one.lua", "--admin \(other)   pid \(getpid()), two.lua"] {
      #expect(several?.message.contains(part) == true, "\(several?.message ?? "")")
    }
    one.stop()
    two.stop()
  }

  @Test("a socket of a process that has ended is ignored and removed; one of a living process stays")
  func dead() throws {
    let scratch = try Scratch()
    let surroundings = scratch.surroundings(runtime: true)
    var child = pid_t()
    var arguments: [UnsafeMutablePointer<CChar>?] = [strdup("true"), nil]
    try #require(posix_spawn(&child, "/bin/true", nil, nil, &arguments, nil) == 0)
    waitpid(child, nil, 0)
    free(arguments[0])
    for processID in [child, getpid()] {
      let path = try AdminPath.serverPath(option: nil, processID: processID, surroundings: surroundings)
      shutdown(try AdminListener.open(path: path).descriptor, Int32(SHUT_RDWR))
    }
    #expect(AdminDiscovery.runningServers(surroundings).isEmpty)
    #expect(mode("\(scratch.path)/run/moonport/\(child).sock") == nil)
    #expect(mode("\(scratch.path)/run/moonport/\(getpid()).sock") == 0o600)
  }
}
