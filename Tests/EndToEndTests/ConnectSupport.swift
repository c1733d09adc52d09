// The two sides of a test of `moonport connect`: the running client, redirected or on a terminal, and the server that
// the test plays. Must never know a single test.

import Glibc
import Testing

/// Longest wait for anything in these tests, in milliseconds; only a failing test waits that long.
let connectPatienceMilliseconds: Int32 = 20_000

/// One running `moonport connect`.
final class ConnectClient {
  let processID: pid_t
  /// Our ends of its input, its output and its errors; on a terminal the same descriptor.
  private(set) var input: Int32
  private(set) var output: Int32
  let errors: Int32

  private(set) var outputBytes: [UInt8] = []
  private(set) var errorBytes: [UInt8] = []
  private var status: Int32?

  /// The program under test lies beside the program that holds the tests.
  private static var program: String {
    var buffer = [UInt8](repeating: 0, count: 4096)
    let count = buffer.withUnsafeMutableBytes { readlink("/proc/self/exe", $0.baseAddress!, $0.count) }
    let path = String(decoding: buffer[..<max(count, 0)], as: UTF8.self)
    return path[..<(path.lastIndex(of: "/") ?? path.endIndex)] + "/moonport"
  }

  /// Starts it with redirected input, output and errors.
  init(redirectedTo address: String) throws {
    let pipes = try (0..<3).map { _ in try Self.pipe() }
    (input, output, errors) = (pipes[0].write, pipes[1].read, pipes[2].read)
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_adddup2(&actions, pipes[0].read, 0)
    posix_spawn_file_actions_adddup2(&actions, pipes[1].write, 1)
    posix_spawn_file_actions_adddup2(&actions, pipes[2].write, 2)
    processID = try Self.spawn(address, &actions, ownSession: false)
    for descriptor in [pipes[0].read, pipes[1].write, pipes[2].write] { close(descriptor) }
  }

  /// Starts it on a terminal of its own, 40 columns wide.
  init(onTerminalTo address: String) throws {
    let master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC)
    var number: UInt32 = 0
    var lock: Int32 = 0
    // TIOCSPTLCK and TIOCGPTN, see ioctl_tty(2): unlocks the other end and tells which /dev/pts it is.
    let isOpen = master >= 0 && ioctl(master, 0x4004_5431, &lock) == 0 && ioctl(master, 0x8004_5430, &number) == 0
    try #require(isOpen)
    let name = "/dev/pts/\(number)"
    var size = winsize(ws_row: 24, ws_col: 40, ws_xpixel: 0, ws_ypixel: 0)
    _ = ioctl(master, UInt(TIOCSWINSZ), &size)
    (input, output, errors) = (master, master, -1)
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    // The leader of a new session gets the first terminal it opens as its own.
    posix_spawn_file_actions_addopen(&actions, 0, name, O_RDWR, 0)
    posix_spawn_file_actions_adddup2(&actions, 0, 1)
    posix_spawn_file_actions_adddup2(&actions, 0, 2)
    processID = try Self.spawn(address, &actions, ownSession: true)
  }

  deinit {
    if status == nil {
      kill(processID, SIGKILL)
      waitpid(processID, nil, 0)
    }
    for descriptor in Set([input, output, errors]) where descriptor >= 0 { close(descriptor) }
  }

  private static func pipe() throws -> (read: Int32, write: Int32) {
    var ends: [Int32] = [0, 0]
    try #require(Glibc.pipe(&ends) == 0)
    for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
    return (ends[0], ends[1])
  }

  private static func spawn(
    _ address: String, _ actions: inout posix_spawn_file_actions_t, ownSession: Bool
  ) throws -> pid_t {
    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    // Threads of the test runner block signals, and a child would inherit that.
    var noSignals = sigset_t()
    sigemptyset(&noSignals)
    posix_spawnattr_setsigmask(&attributes, &noSignals)
    let ownSessionFlag = Int16(0x80)  // POSIX_SPAWN_SETSID of spawn.h
    posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK) | (ownSession ? ownSessionFlag : 0))
    var arguments: [UnsafeMutablePointer<CChar>?] = [strdup(program), strdup("connect"), strdup(address), nil]
    var environment: [UnsafeMutablePointer<CChar>?] = [strdup("TERM=xterm"), nil]
    defer { for text in arguments + environment { free(text) } }
    var processID = pid_t()
    let error = posix_spawn(&processID, program, &actions, &attributes, &arguments, &environment)
    try #require(error == 0)
    return processID
  }

  func type(_ text: String) { type(Array(text.utf8)) }

  func type(_ bytes: [UInt8]) {
    var sent = 0
    while sent < bytes.count {
      let count = bytes.withUnsafeBytes { write(input, $0.baseAddress! + sent, bytes.count - sent) }
      guard count > 0 else { return }
      sent += count
    }
  }

  func endInput() {
    close(input)
    input = -1
  }

  func stopReadingOutput() {
    close(output)
    output = -1
  }

  var outputText: String { String(decoding: outputBytes, as: UTF8.self) }
  var errorText: String { String(decoding: errorBytes, as: UTF8.self) }

  /// The rows that a user sees.
  var rows: [String] {
    var terminal = TinyTerminal(columns: 40)
    terminal.write(outputBytes)
    return terminal.text
  }

  /// Reads what it writes until `condition` holds; false when it ends or takes too long.
  func waits(until condition: () -> Bool) -> Bool {
    while !condition() {
      var entries = [
        pollfd(fd: output, events: Int16(POLLIN), revents: 0), pollfd(fd: errors, events: Int16(POLLIN), revents: 0),
      ]
      guard poll(&entries, 2, connectPatienceMilliseconds) > 0 else { return false }
      var arrived = false
      if entries[0].revents != 0 { arrived = Self.read(output, &outputBytes) || arrived }
      if entries[1].revents != 0 { arrived = Self.read(errors, &errorBytes) || arrived }
      if !arrived { return condition() }
    }
    return true
  }

  private static func read(_ descriptor: Int32, _ bytes: inout [UInt8]) -> Bool {
    var chunk = [UInt8](repeating: 0, count: 65_536)
    let count = Glibc.read(descriptor, &chunk, chunk.count)
    guard count > 0 else { return false }
    bytes += chunk[..<count]
    return true
  }

  /// Its exit status once it has ended and all its output is read; 1000 + the signal when one ended it.
  func exitStatus() -> Int32 {
    _ = waits(until: { false })
    var raw: Int32 = 0
    let end = ContinuousClock.now + .milliseconds(Int64(connectPatienceMilliseconds))
    while waitpid(processID, &raw, WNOHANG) == 0 {
      if ContinuousClock.now > end { kill(processID, SIGKILL) }
      poll(nil, 0, 1)
    }
    let result = raw & 0x7F == 0 ? (raw >> 8) & 0xFF : 1000 + (raw & 0x7F)
    status = result
    return result
  }

  /// Whether its terminal edits lines and echoes itself, as a shell expects to find it.
  var isTerminalRestored: Bool {
    var mode = termios()
    guard tcgetattr(input, &mode) == 0 else { return false }
    let flags = tcflag_t(ICANON | ECHO | ISIG)
    return mode.c_lflag & flags == flags
  }
}

/// The server's side: a listener on loopback, one client at a time.
final class ConnectPeer {
  private var listener: Int32 = -1
  private var connection: Int32 = -1
  private(set) var port: UInt16 = 0
  private(set) var received: [UInt8] = []

  /// Listens at once, or only takes a free port, on which nobody listens until `listen`.
  init(listens: Bool = true) throws {
    try bind(port: 0)
    if listens { try listen() }
  }

  deinit {
    closeConnection()
    close(listener)
  }

  var address: String { "127.0.0.1:\(port)" }

  private func bind(port wanted: UInt16) throws {
    listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
    var length = socklen_t(MemoryLayout<sockaddr_in>.size)
    let result = withUnsafeMutablePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { pointer in
        Glibc.bind(listener, pointer, length) == 0 && getsockname(listener, pointer, &length) == 0
      }
    }
    try #require(result)
    port = UInt16(bigEndian: address.sin_port)
  }

  func listen() throws {
    try #require(Glibc.listen(listener, 8) == 0)
  }

  func accept() throws {
    try #require(isReady(listener, Int16(POLLIN)))
    connection = accept4()
    try #require(connection >= 0)
  }

  private func accept4() -> Int32 {
    let descriptor = Glibc.accept(listener, nil, nil)
    _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
    return descriptor
  }

  func send(_ text: String) { send(Array(text.utf8)) }

  func send(_ bytes: [UInt8]) {
    var sent = 0
    while sent < bytes.count {
      let count = bytes.withUnsafeBytes {
        Glibc.send(connection, $0.baseAddress! + sent, bytes.count - sent, Int32(MSG_NOSIGNAL))
      }
      guard count > 0 else { return }
      sent += count
    }
  }

  func receives(_ text: String) -> Bool { receives(Array(text.utf8)) }

  /// Reads until as many bytes as `expected` have come in all; whether they are the same.
  func receives(_ expected: [UInt8]) -> Bool {
    while received.count < expected.count, read() {}
    return received == expected
  }

  /// Whether the client closed its sending side, after `received`.
  func receivesEnd() -> Bool {
    while read() {}
    return ended
  }

  private var ended = false

  private func read() -> Bool {
    guard isReady(connection, Int16(POLLIN)) else { return false }
    var chunk = [UInt8](repeating: 0, count: 65_536)
    let count = recv(connection, &chunk, chunk.count, 0)
    ended = count == 0
    guard count > 0 else { return false }
    received += chunk[..<count]
    return true
  }

  private func isReady(_ descriptor: Int32, _ events: Int16) -> Bool {
    var entry = pollfd(fd: descriptor, events: events, revents: 0)
    return poll(&entry, 1, connectPatienceMilliseconds) > 0
  }

  func closeConnection() {
    if connection >= 0 { close(connection) }
    connection = -1
  }

  /// Ends the connection with a reset.
  func resetConnection() {
    var option = linger(l_onoff: 1, l_linger: 0)
    setsockopt(connection, SOL_SOCKET, SO_LINGER, &option, socklen_t(MemoryLayout<linger>.size))
    closeConnection()
  }
}

/// Work on a thread of its own, waited for.
final class ConnectBackground: @unchecked Sendable {
  private var thread = pthread_t()
  private let work: () -> Void

  init(_ work: @escaping () -> Void) {
    self.work = work
    let box = Unmanaged.passRetained(self)
    pthread_create(
      &thread, nil,
      {
        Unmanaged<ConnectBackground>.fromOpaque($0!).takeRetainedValue().work()
        return nil
      }, box.toOpaque())
  }

  func wait() { pthread_join(thread, nil) }
}
