// The client's loop: keyboard to server, server to screen, neither ever waiting for the other. All branching of
// `connect` lives here; must never know addresses or exit statuses.

import Glibc

/// Moves bytes between standard input, one socket and standard output until one side ends. See poll(2).
struct LineClient {
  /// How a conversation ended.
  enum End: Equatable {
    /// The server closed, and all it sent was shown.
    case serverClosed
    /// The user typed `quit`, or the input held it.
    case quit
    /// Nobody reads standard output any more.
    case outputClosed
    /// Something broke; a sentence for the user.
    case failed(String)
  }

  /// Bytes that wait for the server before no more input is read, and for the screen before no more is received:
  /// enough to keep both sides busy, little enough to feel that the other side is slow.
  private static let queueBytesMax = 65_536
  private static let readBytes = 16_384
  /// What a pipe that is ready to be written to takes without blocking: PIPE_BUF, see pipe(7).
  private static let outputBytesPerWrite = 4096
  /// After `quit`, how long the server may take to close, in seconds, so that its last answer is shown and no unread
  /// byte turns our end into a reset; and how long it may take to accept a part of what is unsent.
  private static let lingerSeconds: Double = 0.5
  private static let flushSeconds: Double = 5

  private let socket: Int32
  private let outputIsTerminal = isatty(STDOUT_FILENO) == 1
  private let isEditing: Bool

  private var toServer = ByteQueue()
  private var toScreen = ByteQueue()
  private var inputOpen = true
  private var serverOpen = true
  private var sendingOpen = true
  private var leavesBy: ContinuousClock.Instant?

  private var quit = QuitFilter()
  private var editor = LineEditor()
  private var screen = TerminalScreen()
  private var harmless = TerminalText()

  /// Takes over `socket`, connected and non-blocking. `input` was already read from standard input and comes first.
  init(socket: Int32, input: [UInt8]) {
    self.socket = socket
    isEditing = TerminalMode.isPossible && TerminalMode.enter()
    take(plain: input)
  }

  /// Runs the conversation; closes the socket and restores the terminal whatever the end.
  mutating func run() -> End {
    var end: End?
    while end == nil { end = turn() }
    if isEditing, end != .outputClosed {
      // Without waiting: the line end matters little, and the terminal may be stopped.
      _ = StandardStream.write(screen.left(), to: STDOUT_FILENO)
    }
    TerminalMode.leave()
    _ = close(socket)
    return end ?? .serverClosed
  }

  /// One wait and what came of it; not nil at the end.
  private mutating func turn() -> End? {
    if !serverOpen, toScreen.isEmpty { return leavesBy == nil ? .serverClosed : .quit }
    if let leavesBy, ContinuousClock.now >= leavesBy { return .quit }
    var entries = [
      pollfd(fd: wantsInput ? STDIN_FILENO : -1, events: Int16(POLLIN), revents: 0),
      pollfd(fd: serverOpen ? socket : -1, events: socketEvents, revents: 0),
      pollfd(fd: toScreen.isEmpty ? -1 : STDOUT_FILENO, events: Int16(POLLOUT), revents: 0),
    ]
    let ready = unsafe poll(&entries, nfds_t(entries.count), waitMilliseconds)
    if isEditing, TerminalMode.takeResumed() { toScreen.append(screen.resumed()) }
    guard ready > 0 else { return nil }
    if entries[2].revents != 0, let end = show() { return end }
    if entries[1].revents != 0, let end = serve(entries[1].revents) { return end }
    if entries[0].revents != 0 { readInput() }
    return closeSendingWhenDone()
  }

  private var wantsInput: Bool { inputOpen && toServer.count < Self.queueBytesMax }

  private var socketEvents: Int16 {
    var events = toScreen.count < Self.queueBytesMax ? Int16(POLLIN) : 0
    if !toServer.isEmpty { events |= Int16(POLLOUT) }
    return events
  }

  private var waitMilliseconds: Int32 {
    guard let leavesBy else { return -1 }
    let remaining = (leavesBy - ContinuousClock.now).components
    return Int32(clamping: max(0, remaining.seconds * 1000 + remaining.attoseconds / 1_000_000_000_000_000 + 1))
  }

  // MARK: - Input

  private mutating func readInput() {
    var chunk = [UInt8](repeating: 0, count: Self.readBytes)
    let count = unsafe chunk.withUnsafeMutableBytes { unsafe read(STDIN_FILENO, $0.baseAddress, $0.count) }
    if count > 0 {
      isEditing ? take(typed: chunk[..<count]) : take(plain: chunk[..<count])
    } else if count == 0 || (errno != EINTR && errno != EAGAIN) {
      endInput()
    }
  }

  private mutating func take(plain bytes: some Collection<UInt8>) {
    var passed: [UInt8] = []
    let leaves = quit.pass(bytes, to: &passed)
    queue(passed)
    if leaves { leave() }
  }

  private mutating func take(typed bytes: some Collection<UInt8>) {
    for byte in bytes where inputOpen {
      switch editor.feed(byte) {
      case .none: break
      case .changed: draw()
      case .full: toScreen.append([0x07])
      case .line(let line):
        toScreen.append(screen.entered())
        take(plain: line)
      case .partial(let text):
        screen.sentPartially(columns: TerminalMode.columns)
        take(plain: text)
        var passed: [UInt8] = []
        quit.release(to: &passed)
        queue(passed)
      case .endOfInput: endInput()
      }
    }
  }

  private mutating func draw() {
    let visible = TerminalText.visible(typed: editor.typed)
    toScreen.append(screen.edited(visible, columns: TerminalMode.columns))
  }

  private mutating func endInput() {
    inputOpen = false
    var passed: [UInt8] = []
    let leaves = quit.end(to: &passed)
    queue(passed)
    if leaves { leave() }
  }

  private mutating func leave() {
    inputOpen = false
    leavesBy = .now + .seconds(toServer.isEmpty ? Self.lingerSeconds : Self.flushSeconds)
  }

  // MARK: - Server

  private mutating func queue(_ bytes: [UInt8]) {
    if sendingOpen { toServer.append(bytes) }
  }

  private mutating func serve(_ events: Int16) -> End? {
    if events & Int16(POLLOUT) != 0 { send() }
    if events & Int16(POLLIN | POLLHUP | POLLERR) != 0 { return receive() }
    return nil
  }

  private mutating func send() {
    let count = unsafe toServer.withBytes { bytes in
      unsafe Glibc.send(socket, bytes.baseAddress, bytes.count, Int32(MSG_NOSIGNAL))
    }
    if count > 0 {
      toServer.drop(count)
      if leavesBy != nil { leave() }
    } else if count < 0, errno != EAGAIN, errno != EINTR {
      // The server is gone. What it said before is still to be read, and that read tells how it ended.
      toServer.drop(toServer.count)
      sendingOpen = false
    }
  }

  private mutating func receive() -> End? {
    var chunk = [UInt8](repeating: 0, count: Self.readBytes)
    let count = unsafe chunk.withUnsafeMutableBytes { unsafe recv(socket, $0.baseAddress, $0.count, 0) }
    if count > 0 {
      arrived(chunk[..<count])
      return nil
    }
    let error = count < 0 ? errno : 0
    if error == EAGAIN || error == EINTR { return nil }
    serverOpen = false
    inputOpen = false
    if outputIsTerminal { showServer(harmless.flush()) }
    if error == 0 || leavesBy != nil { return nil }
    while !toScreen.isEmpty { if let end = show() { return end } }
    return .failed("the connection was lost: \(unsafe String(cString: strerror(error)))")
  }

  /// Once all is sent, tells the server that no more will come. See shutdown(2).
  private mutating func closeSendingWhenDone() -> End? {
    guard !inputOpen, sendingOpen, serverOpen, toServer.isEmpty else { return nil }
    _ = shutdown(socket, Int32(SHUT_WR))
    sendingOpen = false
    return nil
  }

  // MARK: - Screen

  private mutating func arrived(_ bytes: ArraySlice<UInt8>) {
    if outputIsTerminal {
      showServer(harmless.visible(bytes))
    } else {
      toScreen.append(Array(bytes))
    }
  }

  private mutating func showServer(_ visible: [UInt8]) {
    toScreen.append(isEditing ? screen.arrived(visible, columns: TerminalMode.columns) : visible)
  }

  private mutating func show() -> End? {
    let count = unsafe toScreen.withBytes { bytes in
      unsafe write(STDOUT_FILENO, bytes.baseAddress, min(bytes.count, Self.outputBytesPerWrite))
    }
    if count > 0 {
      toScreen.drop(count)
    } else if count < 0, errno == EPIPE {
      return .outputClosed
    } else if count < 0, errno != EAGAIN, errno != EINTR {
      return .failed("cannot write what arrived: \(unsafe String(cString: strerror(errno)))")
    }
    return nil
  }
}

/// Bytes that wait for a descriptor, first in, first out.
struct ByteQueue {
  private var bytes: [UInt8] = []
  private var start = 0

  var count: Int { bytes.count - start }
  var isEmpty: Bool { count == 0 }

  mutating func append(_ more: [UInt8]) {
    bytes += more
  }

  /// Forgets the first `count` bytes.
  mutating func drop(_ count: Int) {
    start += count
    precondition(start <= bytes.count, "no more is dropped than is there")
    // Moving the rest down only when half is gone keeps the cost per byte constant.
    if start * 2 >= bytes.count {
      bytes.removeFirst(start)
      start = 0
    }
  }

  /// Calls `body` with the bytes that wait.
  func withBytes<Result>(_ body: (UnsafeRawBufferPointer) -> Result) -> Result {
    unsafe bytes.withUnsafeBytes { unsafe body(UnsafeRawBufferPointer(rebasing: $0[start...])) }
  }
}
