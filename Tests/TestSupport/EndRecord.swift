// How children ended, written down for a script that counts them after the tests: scripts/torture says how many servers ended in
// any other way than they were told to.
//
// Must never know: what the tests expect.

import Glibc

/// Appends to the file that `MOONPORT_ENDS` names; does nothing without it.
enum EndRecord {
  private static let path: String? = getenv("MOONPORT_ENDS").map { String(cString: $0) }

  /// One line for a child that has ended: whether it was "told" to end so or it was "unasked", its status, and its command.
  /// `signals` are those that the tests have sent it.
  static func note(_ status: ExitStatus, _ launch: Launch, signals: Set<Int32>) {
    guard let path else { return }
    let isAsked =
      switch status {
      case .exited(let code): code == 0
      case .signaled(let signal): signals.contains(signal)
      }
    let name = launch.executable.split(separator: "/").last ?? ""
    let line = "\(isAsked ? "told" : "unasked")|\(status)|\(name) \(launch.arguments.first ?? "")\n"
    let descriptor = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0o600)
    guard descriptor >= 0 else { return }
    defer { close(descriptor) }
    // One write for each line: those of several threads do not mix.
    try? writeAll(Array(line.utf8), to: descriptor, name: path)
  }
}
