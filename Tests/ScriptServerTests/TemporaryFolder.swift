// A folder of its own for each test, with the few ways in which people and programs change files.

import Glibc

/// A folder that is removed with everything in it when the test lets go of it.
final class TemporaryFolder {
  let path: String

  init() {
    var template = Array("/tmp/moonport-test-XXXXXX".utf8CString)
    path = template.withUnsafeMutableBufferPointer { String(cString: mkdtemp($0.baseAddress!)) }
  }

  deinit { Self.removeAll(path) }

  private static func removeAll(_ path: String) {
    // A symbolic link to a folder is removed itself, not followed.
    if unlink(path) == 0 { return }
    if let folder = opendir(path) {
      while let entry = readdir(folder) {
        let name = withUnsafePointer(to: &entry.pointee.d_name) {
          $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
        }
        if name != "." && name != ".." { removeAll(path + "/" + name) }
      }
      closedir(folder)
    }
    rmdir(path)
  }

  func path(_ name: String) -> String { path + "/" + name }

  /// Creates or truncates the file and writes it in one go.
  @discardableResult
  func write(_ name: String, _ text: String) -> String {
    let descriptor = openForWriting(name)
    append(descriptor, text)
    close(descriptor)
    return path(name)
  }

  func openForWriting(_ name: String) -> CInt {
    let descriptor = open(path(name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
    precondition(descriptor >= 0, "\(name): \(String(cString: strerror(errno)))")
    return descriptor
  }

  func append(_ descriptor: CInt, _ text: String) {
    let bytes = Array(text.utf8)
    precondition(Glibc.write(descriptor, bytes, bytes.count) == bytes.count)
  }

  func makeFolder(_ name: String) { precondition(mkdir(path(name), 0o755) == 0) }
  func rename(_ from: String, to: String) { precondition(Glibc.rename(path(from), path(to)) == 0) }
  func delete(_ name: String) { precondition(remove(path(name)) == 0) }
  func link(_ name: String, to target: String) { precondition(symlink(target, path(name)) == 0) }
}
