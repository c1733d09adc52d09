// The terminal's mode while lines are edited here, given back on every way out: the end, a signal, a stop. Must never
// know what is typed.

import Glibc
import Synchronization

/// The mode to give back, reachable from signal handlers; nil while it is not ours.
nonisolated(unsafe) private var savedMode: UnsafeMutablePointer<termios>?
/// Our own mode, for coming back from a stop.
nonisolated(unsafe) private var editingMode: UnsafeMutablePointer<termios>?
/// Whether the program was stopped and has come back since this was last asked.
private let hasResumed = Atomic<Bool>(false)

/// Character by character and without echo: standard input's terminal while `LineEditor` edits.
enum TerminalMode {
  /// The width taken when the terminal does not tell its own.
  private static let usualColumns = 80

  /// Whether lines can be edited here: input and output are a terminal that can move its cursor.
  static var isPossible: Bool {
    guard isatty(STDIN_FILENO) == 1, isatty(STDOUT_FILENO) == 1 else { return false }
    let kind = unsafe getenv("TERM").map { unsafe String(cString: $0) } ?? ""
    return !kind.isEmpty && kind != "dumb"
  }

  /// Begins; false when the terminal refuses. Signals stay with the terminal's keys: Ctrl-C ends the program even
  /// while it waits for a server that does not read. See termios(3).
  static func enter() -> Bool {
    var mode = termios()
    guard unsafe tcgetattr(STDIN_FILENO, &mode) == 0 else { return false }
    var editing = mode
    editing.c_lflag &= ~tcflag_t(ICANON | ECHO | IEXTEN)
    editing.c_iflag &= ~tcflag_t(INLCR | IGNCR)
    editing.c_iflag |= tcflag_t(ICRNL)
    unsafe withUnsafeMutableBytes(of: &editing.c_cc) { keys in
      unsafe keys[Int(VMIN)] = 1
      unsafe keys[Int(VTIME)] = 0
    }
    unsafe editingMode = copy(of: editing)
    unsafe savedMode = copy(of: mode)
    hasResumed.store(false, ordering: .relaxed)
    installHandlers()
    guard unsafe tcsetattr(STDIN_FILENO, TCSANOW, &editing) == 0 else {
      leave()
      return false
    }
    return true
  }

  /// Gives the terminal's mode back. Harmless when it is not ours.
  static func leave() {
    guard let mode = unsafe savedMode else { return }
    unsafe _ = tcsetattr(STDIN_FILENO, TCSANOW, mode)
    unsafe savedMode = nil
    unsafe mode.deallocate()
    unsafe editingMode?.deallocate()
    unsafe editingMode = nil
  }

  /// Whether the program came back from a stop since the last call, so that the typed text must be shown again.
  static func takeResumed() -> Bool {
    hasResumed.exchange(false, ordering: .relaxed)
  }

  /// The terminal's width now. See TIOCGWINSZ in ioctl_tty(2).
  static var columns: Int {
    var size = winsize()
    guard unsafe ioctl(STDOUT_FILENO, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0 else { return usualColumns }
    return Int(size.ws_col)
  }

  private static func copy(of mode: termios) -> UnsafeMutablePointer<termios> {
    let pointer = UnsafeMutablePointer<termios>.allocate(capacity: 1)
    unsafe pointer.initialize(to: mode)
    return unsafe pointer
  }

  /// Signals that the parent wants ignored (nohup) stay ignored.
  private static func installHandlers() {
    for number in [SIGINT, SIGTERM, SIGHUP, SIGQUIT] { install(endedBySignal, for: number) }
    install(stoppedBySignal, for: SIGTSTP)
    install(continuedBySignal, for: SIGCONT)
  }

  private static func install(_ handler: @escaping @convention(c) (Int32) -> Void, for number: Int32) {
    // Setting a disposition is the way to learn the one before.
    let before = signal(number, handler)
    if unsafe unsafeBitCast(before, to: Int.self) == unsafeBitCast(SIG_IGN, to: Int.self) {
      _ = signal(number, SIG_IGN)
    }
  }
}

/// Gives the mode back, goes to a new line and lets the signal do what it does without us. Only calls that
/// signal-safety(7) allows.
private func endedBySignal(_ number: Int32) {
  restoreFromHandler()
  _ = signal(number, SIG_DFL)
  _ = raise(number)
}

private func stoppedBySignal(_ number: Int32) {
  restoreFromHandler()
  _ = signal(SIGTSTP, SIG_DFL)
  _ = raise(SIGTSTP)
}

private func continuedBySignal(_ number: Int32) {
  guard let mode = unsafe editingMode else { return }
  _ = signal(SIGTSTP, stoppedBySignal)
  unsafe _ = tcsetattr(STDIN_FILENO, TCSANOW, mode)
  hasResumed.store(true, ordering: .relaxed)
}

private func restoreFromHandler() {
  guard let mode = unsafe savedMode else { return }
  unsafe _ = tcsetattr(STDIN_FILENO, TCSANOW, mode)
  var newline = UInt8(ascii: "\n")
  unsafe _ = write(STDOUT_FILENO, &newline, 1)
}
