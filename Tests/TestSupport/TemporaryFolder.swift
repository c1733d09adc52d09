// A folder of one test, removed with everything in it when the test lets go of it.
//
// Must never know: what the files are for.

import Glibc

/// A fresh folder under `TMPDIR` (or /tmp) with a name short enough for a Unix socket in it.
package final class TemporaryFolder: Sendable {
  /// The folder's absolute path.
  package let path: String

  /// Makes the folder, as mkdtemp(3) does: mode 0700.
  package init() throws {
    let parent = getenv("TMPDIR").map { String(cString: $0) } ?? "/tmp"
    var template = Array("\(parent)/moonport-XXXXXX".utf8CString)
    guard mkdtemp(&template) != nil else { throw TestFailure.call("mkdtemp \(parent)") }
    path = template.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
  }

  deinit {
    removeTree(path)
  }

  /// The absolute path of `name` inside the folder, whether it exists or not.
  package func file(_ name: String) -> String { "\(path)/\(name)" }

  /// Writes `text` into the file `name` in place, as `cat >` does, making folders on the way; returns its path.
  @discardableResult
  package func write(_ name: String, _ text: String) throws -> String {
    try makeParents(of: name)
    let path = file(name)
    let descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
    guard descriptor >= 0 else { throw TestFailure.call("open \(path)") }
    defer { close(descriptor) }
    try writeAll(Array(text.utf8), to: descriptor, name: path)
    return path
  }

  /// Replaces the file `name` in one step, as an editor does: a new file beside it is renamed over it.
  @discardableResult
  package func replace(_ name: String, _ text: String) throws -> String {
    let new = try write("\(name).new~", text)
    guard rename(new, file(name)) == 0 else { throw TestFailure.call("rename \(new)") }
    return file(name)
  }

  /// Makes `name` a symbolic link to `target`, replacing in one step what was there before; returns the link's path.
  @discardableResult
  package func link(_ name: String, to target: String) throws -> String {
    try makeParents(of: name)
    let new = file("\(name).new~")
    guard symlink(target, new) == 0 else { throw TestFailure.call("symlink \(new)") }
    guard rename(new, file(name)) == 0 else { throw TestFailure.call("rename \(new)") }
    return file(name)
  }

  /// Removes the file `name`.
  package func remove(_ name: String) throws {
    guard unlink(file(name)) == 0 else { throw TestFailure.call("unlink \(file(name))") }
  }

  private func makeParents(of name: String) throws {
    var folder = path
    for part in name.split(separator: "/").dropLast() {
      folder += "/\(part)"
      guard mkdir(folder, 0o755) == 0 || errno == EEXIST else { throw TestFailure.call("mkdir \(folder)") }
    }
  }
}

/// Writes all of `bytes` to a blocking descriptor.
func writeAll(_ bytes: [UInt8], to descriptor: Int32, name: String) throws {
  var start = 0
  while start < bytes.count {
    let count = bytes.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress! + start, $0.count - start) }
    if count < 0 {
      if errno == EINTR { continue }
      throw TestFailure.call("write \(name)")
    }
    start += count
  }
}

/// Removes a file, a link, or a folder with all that is in it; what cannot be removed stays.
private func removeTree(_ path: String) {
  // Only a real folder refuses unlink(2) with EISDIR: a link to one is removed, not followed.
  guard unlink(path) < 0, errno == EISDIR || errno == EPERM else { return }
  for name in (try? folderEntries(path)) ?? [] { removeTree("\(path)/\(name)") }
  rmdir(path)
}

/// The names in a folder, in no order, without "." and "..".
func folderEntries(_ path: String) throws -> [String] {
  guard let folder = opendir(path) else { throw TestFailure.call("opendir \(path)") }
  defer { closedir(folder) }
  var names: [String] = []
  while let entry = readdir(folder) {
    let name = withUnsafePointer(to: &entry.pointee.d_name) {
      $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
    }
    if name != ".", name != ".." { names.append(name) }
  }
  return names
}
