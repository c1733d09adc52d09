// What keeps a snapshot from being taken, in words for the operator, and what to watch until it is repaired.

import Glibc

/// The paths a generation depends on, as a file watcher needs them.
package struct WatchSet: Sendable {
  /// The files as they were read.
  package var files: [SourceFile] = []
  /// Absolute paths that were looked for in vain: the moment one appears, another file would be loaded.
  package var missing: [String] = []
  /// Absolute paths of files that are there but could not be read.
  package var unreadable: [String] = []
}

/// Why no snapshot could be taken, or why a module of it could not be read.
package struct SnapshotError: Error, Sendable, CustomStringConvertible {
  /// The kinds of failure, for tests and for callers that choose by them.
  package enum Reason: Sendable, Equatable {
    case noSuchFile
    case isDirectory
    case notRegularFile
    case fileTooLarge(byteCount: Int)
    case snapshotTooLarge
    case tooManyFiles
    case binaryChunk
    case keepsChanging
    /// Another refusal of the system, with its errno; EACCES is the usual one.
    case system(CInt)
  }

  package let reason: Reason
  /// The file as the user would name it.
  package let path: String
  /// What to watch so that the next change is noticed.
  package var watchSet = WatchSet()

  init(_ reason: Reason, path: String) {
    self.reason = reason
    self.path = path
  }

  /// What went wrong, with which file, and what to do about it, in one line without a line break of its own.
  package var description: String {
    switch reason {
    case .noSuchFile:
      "\(path): no such file; check the path of the script"
    case .isDirectory:
      "\(path): is a directory; name the script inside it"
    case .notRegularFile:
      "\(path): not a regular file; a script must be a file that can be read again, not a pipe or a device"
    case .fileTooLarge(let byteCount):
      "\(path): \(byteCount) bytes are more than the \(SnapshotLimits.fileBytesMax) a source file may have; "
        + "load large data at run time instead"
    case .snapshotTooLarge:
      "\(path): with this file the script and its modules exceed \(SnapshotLimits.snapshotBytesMax) bytes; "
        + "load large data at run time instead"
    case .tooManyFiles:
      "\(path): with this file the script has more than \(SnapshotLimits.filesMax) modules; require fewer"
    case .binaryChunk:
      "\(path): is a compiled Lua chunk; give the Lua source instead"
    case .keepsChanging:
      "\(path): kept changing while it was read, so half of it may be missing; it has to be written to its end first"
    case .system(EACCES):
      "\(path): permission denied; make it readable for the user the server runs as"
    case .system(let code):
      unsafe "\(path): \(String(cString: strerror(code))); make it readable and try again"
    }
  }
}

/// The bounds of one snapshot.
package enum SnapshotLimits {
  /// 16 MiB: a hundred times the largest hand-written Lua file, and still read in a few milliseconds.
  package static let fileBytesMax = 16 << 20
  /// 4096 files: LuaRocks' largest trees have some hundred.
  package static let filesMax = 4096
  /// 256 MiB in all; kept once per generation, and the last two generations are kept for rollback.
  package static let snapshotBytesMax = 256 << 20
  /// 16,384 names that the folder does not have are remembered; a script that asks for ever new names must not fill the
  /// memory. Those beyond are looked for on disk each time.
  static let absentModulesMax = 16_384
  /// 1024 bytes: four folders deep with names of Linux' greatest length (NAME_MAX, 255).
  static let moduleNameBytesMax = 1024
  /// A read that meets a writer starts again after `retryPauseNanoseconds`: with 20 attempts it gives up after about
  /// half a second, in which any program that saves a script is done.
  static let attemptsMax = 20
  static let retryPauseNanoseconds = 25_000_000
}
