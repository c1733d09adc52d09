// One whole file read at one moment, and the proof that nobody changed it meanwhile. Knows nothing of scripts, modules
// or generations: what a path means is its caller's business.

import Glibc

/// What stat(2) tells about a file's content without reading it: as long as it stays equal, the content has not
/// changed.
///
/// Two writes within one tick of the file system's clock would look equal; `FileContent.read` keeps away from files
/// that are younger than `settledAgeNanoseconds` for that reason.
package struct FileStamp: Equatable, Sendable {
  let device: UInt64
  let inode: UInt64
  let byteCount: Int
  /// Last change of the content, nanoseconds since 1970 (st_mtim).
  let modifiedNanoseconds: Int64
  /// Last change of the inode, nanoseconds since 1970 (st_ctim): also moves when a program sets the modification time
  /// back.
  let changedNanoseconds: Int64

  init(_ status: stat) {
    device = UInt64(status.st_dev)
    inode = UInt64(status.st_ino)
    byteCount = Int(status.st_size)
    modifiedNanoseconds = Self.nanoseconds(status.st_mtim)
    changedNanoseconds = Self.nanoseconds(status.st_ctim)
  }

  /// The stamp of the file that `path` leads to now, symbolic links followed (stat(2)); nil when there is none to see.
  static func of(_ path: String) -> FileStamp? { of(path, in: AT_FDCWD) }

  /// As `of`, for a path from an open folder. fstatat(2)
  static func of(_ path: String, in folder: CInt) -> FileStamp? {
    var status = stat()
    guard unsafe fstatat(folder, path, &status, 0) == 0 else { return nil }
    return FileStamp(status)
  }

  /// Whether the content, or a folder's list of names, changed less than so long ago.
  func isYounger(than nanoseconds: UInt64) -> Bool {
    var now = timespec()
    unsafe clock_gettime(CLOCK_REALTIME, &now)
    return Self.nanoseconds(now) &- modifiedNanoseconds < Int64(nanoseconds)
  }

  /// A time as one number; the multiplication wraps for absurd years instead of trapping, equality is all that is
  /// asked.
  static func nanoseconds(_ time: timespec) -> Int64 {
    Int64(time.tv_sec) &* 1_000_000_000 &+ Int64(time.tv_nsec)
  }
}

/// Why a file could not be read as a whole.
enum FileFailure: Error, Equatable {
  /// No such file, or the way to it does not exist (ENOENT, ENOTDIR, ENAMETOOLONG).
  case absent
  case directory
  /// A pipe, device or socket: it cannot be read twice with the same result.
  case special
  case tooLarge(byteCount: Int)
  /// Somebody wrote to it while it was read.
  case changed
  /// Another refusal of the system, with its errno.
  case system(CInt)
}

/// The bytes of one file, whole and from one moment.
struct FileContent {
  let bytes: [UInt8]
  let stamp: FileStamp

  /// A kernel stamps files from a clock that moves once per scheduler tick, 10 ms at its slowest (CONFIG_HZ=100). A
  /// file that is two ticks old when reading begins gets another stamp from any write after that.
  static let settledAgeNanoseconds: Int64 = 20_000_000

  /// Reads the file that `path` leads to, symbolic links followed. Waits at most `settledAgeNanoseconds` for a file
  /// that was written this very moment; fails with `.changed` when the stamp moved between before and after.
  static func read(_ path: String, byteCountMax: Int) throws(FileFailure) -> FileContent {
    let descriptor = try open(path)
    defer { close(descriptor) }
    var before = try status(of: descriptor)
    let kind = before.st_mode & S_IFMT
    if kind == S_IFDIR { throw .directory }
    if kind != S_IFREG { throw .special }
    if waitUntilSettled(before) { before = try status(of: descriptor) }
    let stamp = FileStamp(before)
    if stamp.byteCount > byteCountMax { throw .tooLarge(byteCount: stamp.byteCount) }
    let bytes = try readAll(descriptor, byteCount: stamp.byteCount)
    let after = FileStamp(try status(of: descriptor))
    if bytes.count != stamp.byteCount || after != stamp { throw .changed }
    return FileContent(bytes: bytes, stamp: stamp)
  }

  /// open(2), never waiting for the other end of a pipe.
  private static func open(_ path: String) throws(FileFailure) -> CInt {
    // A string with a NUL would open whatever its first part names.
    if path.utf8.contains(0) { throw .absent }
    while true {
      let descriptor = unsafe Glibc.open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
      if descriptor >= 0 { return descriptor }
      switch errno {
      case EINTR: continue
      case ENOENT, ENOTDIR, ENAMETOOLONG: throw .absent
      // What open(2) says about a socket in the file system.
      case ENXIO: throw .special
      case let code: throw .system(code)
      }
    }
  }

  private static func status(of descriptor: CInt) throws(FileFailure) -> stat {
    var status = stat()
    guard unsafe fstat(descriptor, &status) == 0 else { throw .system(errno) }
    return status
  }

  /// True when it slept because the file was younger than `settledAgeNanoseconds`. A stamp from the future is another
  /// machine's clock and tells nothing.
  private static func waitUntilSettled(_ status: stat) -> Bool {
    var now = timespec()
    unsafe clock_gettime(CLOCK_REALTIME, &now)
    let age = FileStamp.nanoseconds(now) &- FileStamp.nanoseconds(status.st_mtim)
    guard age >= 0, age < settledAgeNanoseconds else { return false }
    sleep(nanoseconds: Int(settledAgeNanoseconds - age))
    return true
  }

  /// Blocks the thread for less than a second (nanosleep(2)), signals notwithstanding.
  static func sleep(nanoseconds: Int) {
    var pause = timespec(tv_sec: 0, tv_nsec: nanoseconds)
    var rest = timespec()
    while unsafe nanosleep(&pause, &rest) != 0 && errno == EINTR { pause = rest }
  }

  /// Everything up to the end of the file, but no more than one byte past `byteCount`: that byte shows that it grew.
  private static func readAll(_ descriptor: CInt, byteCount: Int) throws(FileFailure) -> [UInt8] {
    let capacity = byteCount + 1
    var failure: CInt = 0
    let bytes = unsafe [UInt8](unsafeUninitializedCapacity: capacity) { buffer, filled in
      while filled < capacity {
        let count = unsafe Glibc.read(descriptor, buffer.baseAddress! + filled, capacity - filled)
        if count > 0 {
          filled += count
        } else if count == 0 {
          return
        } else if errno != EINTR {
          failure = errno
          return
        }
      }
    }
    if failure != 0 { throw .system(failure) }
    return bytes
  }
}
