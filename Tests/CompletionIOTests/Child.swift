// Starting programs for a test, by posix_spawn(3): Foundation's Process leaks by the address sanitizer's account, and
// lets a child inherit the signals that test threads block.

import Glibc
import SystemPackage

/// A started program, found by PATH.
struct Child {
  let process: pid_t

  /// Starts it with standard output and standard error in `output`.
  init(_ arguments: [String], output: String = "/dev/null") throws {
    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    var none = sigset_t()
    sigemptyset(&none)
    posix_spawnattr_setsigmask(&attributes, &none)
    posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK))
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_addopen(&actions, 1, output, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
    posix_spawn_file_actions_adddup2(&actions, 1, 2)
    var words = arguments.map { strdup($0) } + [nil]
    defer { for word in words { free(word) } }
    var process: pid_t = 0
    let result = posix_spawnp(&process, arguments[0], &actions, &attributes, &words, environ)
    if result != 0 { throw Errno(rawValue: result) }
    self.process = process
  }

  /// Waits for its end; its exit status, or nil when a signal ended it.
  @discardableResult
  func wait() -> Int? {
    var status: CInt = 0
    while waitpid(process, &status, 0) < 0 && errno == EINTR {}
    return status & 0x7f == 0 ? Int(status >> 8 & 0xff) : nil
  }

  /// Ends it.
  func kill() {
    Glibc.kill(process, SIGKILL)
    wait()
  }
}

/// The whole text of a file.
func contents(of path: String) throws -> String {
  let file = try FileDescriptor.open(path, .readOnly)
  return try file.closeAfter {
    var all: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 65536)
    while true {
      let count = try buffer.withUnsafeMutableBytes { try file.read(into: $0) }
      if count == 0 { return String(decoding: all, as: UTF8.self) }
      all += buffer.prefix(count)
    }
  }
}

/// The names in a folder.
func names(in path: String) -> [String] {
  guard let folder = opendir(path) else { return [] }
  defer { closedir(folder) }
  var names: [String] = []
  while let entry = readdir(folder) {
    let name = withUnsafePointer(to: &entry.pointee.d_name) {
      $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
    }
    if name != "." && name != ".." { names.append(name) }
  }
  return names
}

/// Removes a folder of plain files.
func remove(folder: String) {
  for name in names(in: folder) { unlink("\(folder)/\(name)") }
  rmdir(folder)
}
