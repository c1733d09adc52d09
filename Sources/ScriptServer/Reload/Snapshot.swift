// An immutable set of source files: what one generation is made of. Every worker loads the same bytes from it, whenever
// it asks. Knows no Lua state and does not decide when a snapshot becomes current.

import CompletionIO

/// The script and the modules of its folder, each read once.
///
/// Safe to use from every thread: the files are read under a lock, and what was read never changes.
package final class Snapshot: Sendable {
  /// The generation's number as its maker gave it.
  package let number: Int
  /// 16 hex digits that name the content of the files read by `read`: equal folders have equal hashes on every machine.
  package let hash: String
  /// The script's absolute path.
  package let scriptPath: String
  /// The absolute path of the script's folder.
  package let folder: String
  /// The script itself.
  package let main: SourceFile

  private let lock = ThreadLock()
  /// Guarded by `lock`.
  nonisolated(unsafe) private var reader: SnapshotReader

  /// Reads the script at `path` and every module of its folder that it or a module names in a literal `require`.
  ///
  /// All files are from one moment: when one changes while they are read, or the script has been deleted this moment and may be about
  /// to be created anew, all are read again, `SnapshotLimits.attemptsMax` times at most. May take some 500 ms then, so it belongs on a
  /// thread that serves nobody.
  package static func read(script path: String, number: Int) throws(SnapshotError) -> Snapshot {
    guard let script = ScriptLocation(path) else {
      throw SnapshotError(path.hasSuffix("/") && FileStamp.of(path) != nil ? .isDirectory : .noSuchFile, path: path)
    }
    var attempt = 1
    var inMotion: SnapshotError?
    while true {
      var reader = SnapshotReader(script: script)
      do {
        let main = try reader.readAll()
        return Snapshot(number: number, main: main, reader: reader)
      } catch {
        if error.reason == .keepsChanging { inMotion = error }
        let mayComeBack = error.reason == .noSuchFile && (inMotion != nil || reader.folderHasJustChanged)
        let mayPass = error.reason == .keepsChanging || mayComeBack
        if !mayPass || attempt == SnapshotLimits.attemptsMax {
          var final = mayPass ? inMotion ?? error : error
          final.watchSet = reader.watchSet
          throw final
        }
      }
      attempt += 1
      FileContent.sleep(nanoseconds: SnapshotLimits.retryPauseNanoseconds)
    }
  }

  private init(number: Int, main: SourceFile, reader: SnapshotReader) {
    self.number = number
    self.main = main
    scriptPath = main.path
    folder = reader.script.folder
    hash = Self.hash(of: reader.files)
    unsafe self.reader = reader
  }

  /// The same files under another number: a rollback is a generation of its own.
  package func renumbered(_ number: Int) -> Snapshot {
    Snapshot(number: number, main: main, reader: lock.withLock { unsafe reader })
  }

  /// The source for `require(name)` from the script's folder: `name.lua`, then `name/init.lua`, a dot being a slash.
  /// Nil when the folder has neither or the name would lead out of it.
  ///
  /// The first request reads the disk; each later one of any thread gets the same answer, `nil` included. A file that
  /// is there but cannot be read throws, and the next request tries again.
  package func module(_ name: String) throws(SnapshotError) -> SourceFile? {
    let answer: Result<SourceFile?, SnapshotError> = lock.withLock {
      var attempt = 1
      while true {
        do throws(SnapshotError) {
          return unsafe .success(try reader.module(name))
        } catch {
          if error.reason != .keepsChanging || attempt == SnapshotLimits.attemptsMax { return .failure(error) }
        }
        attempt += 1
        FileContent.sleep(nanoseconds: SnapshotLimits.retryPauseNanoseconds)
      }
    }
    return try answer.get()
  }

  /// All files read so far, those of late requests included, sorted by path.
  package var files: [SourceFile] { watchSet.files }

  /// What a watcher must keep an eye on: the files read so far and the paths searched in vain.
  package var watchSet: WatchSet { lock.withLock { unsafe reader.watchSet } }

  /// How many answers the snapshot has settled so far. It grows when a module is asked for late, and tells whoever
  /// watches the files that the set has grown.
  package var revision: Int { lock.withLock { unsafe reader.files.count + reader.absent.count } }

  /// Where `module(name)` looks, as the user would type it, for the text of an error; none for a name that cannot be
  /// one.
  package func searchedPaths(for name: String) -> [String] {
    let script = lock.withLock { unsafe reader.script }
    return ScriptLocation.candidates(for: name).map(script.displayName)
  }

  private static func hash(of files: [String: SourceFile]) -> String {
    var hash = ContentHash()
    for (name, file) in files.sorted(by: { $0.key < $1.key }) {
      hash.update(part: name.utf8)
      hash.update(part: file.bytes)
    }
    return hash.text
  }
}
