// Reads the files of one snapshot from a script's folder: the script, the modules it names, and those asked for later.
// Knows nothing of generations, threads or Lua states.

import Glibc

/// One Lua source, exactly as the generation holds it.
package struct SourceFile: Sendable {
  /// Absolute path as it was opened; symbolic links are not resolved.
  package let path: String
  /// The path as the user would type it from where the server was started; "@" before it makes the Lua chunk's name.
  package let displayName: String
  /// The source to compile: a byte order mark and a first line that begins with `#` are left out, as `lua` does (the
  /// line's end stays, so line numbers do too).
  package let bytes: [UInt8]
  /// The file's stamp when it was read.
  let stamp: FileStamp
  /// The hash of the file's bytes as they are on disk.
  let contentHash: UInt64
}

/// The growing set of files of one snapshot. Not safe between threads: `Snapshot` holds the lock.
struct SnapshotReader {
  let script: ScriptLocation
  /// The files by their name relative to the folder.
  private(set) var files: [String: SourceFile] = [:]
  /// Names relative to the folder that were looked for in vain.
  private(set) var absent: Set<String> = []
  private(set) var unreadable: Set<String> = []
  private var byteCount = 0

  init(script: ScriptLocation) { self.script = script }

  var watchSet: WatchSet {
    WatchSet(
      files: files.keys.sorted().map { files[$0]! },
      missing: absent.sorted().map(script.path),
      unreadable: unreadable.sorted().map(script.path))
  }

  /// Reads the script and every module it names, then makes sure that all of them are from one moment: throws
  /// `.keepsChanging` when some file changed meanwhile.
  mutating func readAll() throws(SnapshotError) -> SourceFile {
    guard let main = try file(named: script.name) else { throw SnapshotError(.noSuchFile, path: script.typedPath) }
    try readModules(namedBy: main)
    if let name = firstChangedName() { throw SnapshotError(.keepsChanging, path: script.displayName(name)) }
    return main
  }

  /// Follows `require` through the modules. One that cannot be read is no failure yet: the script may never run that
  /// line, and when it does, `module` tells what is wrong where it matters. Only a file in motion or a bound ends the
  /// attempt.
  private mutating func readModules(namedBy main: SourceFile) throws(SnapshotError) {
    var pending = [main]
    while let source = pending.popLast() {
      for name in RequireScan.names(in: source.bytes) {
        let known = files.count
        do {
          guard let module = try module(name), files.count > known else { continue }
          pending.append(module)
        } catch {
          switch error.reason {
          case .keepsChanging, .tooManyFiles, .snapshotTooLarge: throw error
          default: continue
          }
        }
      }
    }
  }

  /// The module's source, from what was read before or from disk; nil when the folder does not have it.
  mutating func module(_ name: String) throws(SnapshotError) -> SourceFile? {
    for candidate in ScriptLocation.candidates(for: name) {
      do {
        if let file = try file(named: candidate) { return file }
      } catch {
        // `a.lua` may be a folder beside `a/init.lua`.
        if error.reason == .isDirectory { continue }
        throw error
      }
    }
    return nil
  }

  private mutating func file(named name: String) throws(SnapshotError) -> SourceFile? {
    if let file = files[name] { return file }
    if absent.contains(name) { return nil }
    let path = script.path(name)
    let content: FileContent
    do throws(FileFailure) {
      content = try FileContent.read(path, byteCountMax: SnapshotLimits.fileBytesMax)
      if Self.isBeingWritten(path, content.stamp) { throw FileFailure.changed }
    } catch {
      if error == .absent {
        if absent.count < SnapshotLimits.absentModulesMax { absent.insert(name) }
        return nil
      }
      unreadable.insert(name)
      throw SnapshotError(Self.reason(for: error), path: script.displayName(name))
    }
    unreadable.remove(name)
    return try keep(content, name: name, path: path)
  }

  private mutating func keep(_ content: FileContent, name: String, path: String) throws(SnapshotError) -> SourceFile {
    let displayName = script.displayName(name)
    if files.count >= SnapshotLimits.filesMax { throw SnapshotError(.tooManyFiles, path: displayName) }
    if content.bytes.count > SnapshotLimits.snapshotBytesMax - byteCount {
      throw SnapshotError(.snapshotTooLarge, path: displayName)
    }
    let source = Self.withoutPreamble(content.bytes)
    // Byte code is not checked by Lua and can corrupt the process (manual section 6.1, `load`). Line ends before it are
    // what is left of a `#` line, which `lua` accepts there.
    if source.first(where: { $0 != UInt8(ascii: "\n") }) == 0x1b {
      unreadable.insert(name)
      throw SnapshotError(.binaryChunk, path: displayName)
    }
    let file = SourceFile(
      path: path, displayName: displayName, bytes: source, stamp: content.stamp,
      contentHash: ContentHash.of(content.bytes))
    byteCount += content.bytes.count
    files[name] = file
    return file
  }

  /// Whether a writer has the file open who may be between two writes: what was read is then half of what is meant, or nothing of
  /// it. One that has been silent for as long as the watcher waits for counts as done.
  private static func isBeingWritten(_ path: String, _ stamp: FileStamp) -> Bool {
    stamp.isYounger(than: WatchedFile.silenceNanoseconds) && WatchedFile.writer(of: path) == .some
  }

  /// Whether a file of the script's folder came or went a moment ago: one that is missing may be about to come back.
  var folderHasJustChanged: Bool {
    FileStamp.of(script.folder)?.isYounger(than: WatchedFile.absenceNanoseconds) ?? false
  }

  private static func reason(for failure: FileFailure) -> SnapshotError.Reason {
    switch failure {
    case .absent: .noSuchFile
    case .directory: .isDirectory
    case .special: .notRegularFile
    case .tooLarge(let byteCount): .fileTooLarge(byteCount: byteCount)
    case .changed: .keepsChanging
    case .system(let code): .system(code)
    }
  }

  /// O_PATH of open(2), which Glibc's module leaves out: a folder may be one that its user cannot list.
  private static let pathOnly: CInt = 0o10_000_000

  /// The name of a file that is not what it was when it was read, missing ones included. All are looked for in the folder that the
  /// path leads to at one moment: where it is a link that is switched to and fro, some could else be found here and some there.
  private func firstChangedName() -> String? {
    let folder = unsafe open(script.folder, Self.pathOnly | O_DIRECTORY | O_CLOEXEC)
    guard folder >= 0 else { return script.name }
    defer { close(folder) }
    for (name, file) in files where FileStamp.of(name, in: folder) != file.stamp { return name }
    return absent.first { FileStamp.of($0, in: folder) != nil }
  }

  /// What `luaL_loadfile` skips: a UTF-8 byte order mark, then a first line that begins with `#`.
  static func withoutPreamble(_ bytes: [UInt8]) -> [UInt8] {
    var source = bytes[...]
    if source.starts(with: [0xef, 0xbb, 0xbf]) { source = source.dropFirst(3) }
    if source.first == UInt8(ascii: "#") { source = source.drop { $0 != UInt8(ascii: "\n") } }
    return source.count == bytes.count ? bytes : [UInt8](source)
  }
}
