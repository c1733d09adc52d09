// Tells when a file of the snapshot has completely changed, so that `--watch` reloads once and never from half a file.
// Has no thread and no clock of its own; does not know what a reload is.

import Glibc

/// Why a watcher could not be made.
package struct FileWatcherError: Error, CustomStringConvertible {
  /// The errno of inotify_init1(2); EMFILE for the user's or the process' limit.
  package let code: CInt

  /// What failed and what to do about it.
  package var description: String {
    let reason = unsafe String(cString: strerror(code))
    return code == EMFILE
      ? "cannot watch files: \(reason); raise fs.inotify.max_user_instances or the limit of open files"
      : "cannot watch files: \(reason)"
  }
}

/// Watches a set of paths by inotify(7). Belongs to one thread, which reads `descriptor` when it is readable and passes
/// the bytes to `handle`, and calls `poll` when `nextDeadline` is reached.
///
/// Times are CLOCK_MONOTONIC nanoseconds, given by the caller.
package struct FileWatcher: ~Copyable {
  /// A change is acted on after 50 ms without another event: an editor's save is several events, a checkout many.
  package static let quietNanoseconds: UInt64 = 50_000_000
  /// Events without pause delay the look at the files by 1 s at most.
  package static let continuousNanoseconds: UInt64 = 1_000_000_000
  /// struct inotify_event up to its name.
  private static let eventHeaderBytes = 16

  /// The inotify descriptor: not blocking, closed with the watcher.
  package let descriptor: CInt

  private var watches: FolderWatches
  private var files: [WatchedFile] = []
  /// Folders that were made, not moved, since the last rebuild: what is in them may have been written unseen.
  private var newFolders: Set<String> = []
  private var firstEventNanoseconds: UInt64?
  private var lastEventNanoseconds: UInt64 = 0
  /// When an unfinished file is to be looked at again without an event.
  private var recheckNanoseconds: UInt64?
  /// The set was replaced: the next `poll` begins a look.
  private var isNew = false

  /// A watcher of nothing yet (inotify_init1(2)).
  package init() throws(FileWatcherError) {
    descriptor = inotify_init1(CInt(IN_NONBLOCK | IN_CLOEXEC))
    if descriptor < 0 { throw FileWatcherError(code: errno) }
    watches = FolderWatches(descriptor: descriptor)
  }

  deinit { close(descriptor) }

  /// Why some changes may go unseen, in words for the operator; nil when everything is watched. Valid after `watch` and
  /// after each `handle`.
  package var problem: String? { watches.problem }

  /// Watches what a snapshot was made of, or what a failed attempt depended on, instead of the set before. Whatever
  /// differs from those very bytes by now is a change.
  package mutating func watch(_ set: WatchSet) {
    var next: [String: WatchedFile] = [:]
    let known = knownFiles()
    for file in set.files {
      var watched = known[file.path] ?? WatchedFile(file)
      watched.rebase(.hash(file.contentHash))
      next[file.path] = watched
    }
    for path in set.missing {
      var watched = known[path] ?? WatchedFile(missing: path)
      watched.rebase(.absent)
      next[path] = watched
    }
    for path in set.unreadable where next[path] == nil { next[path] = known[path] ?? WatchedFile(asOnDisk: path) }
    replace(with: next)
  }

  /// Watches these absolute paths instead of the set before: `files` with the content they had at the last trigger, or
  /// have now if they are new; `missing` for their appearance.
  package mutating func watch(files paths: [String], missing: [String]) {
    var next: [String: WatchedFile] = [:]
    let known = knownFiles()
    for path in paths { next[path] = known[path] ?? WatchedFile(asOnDisk: path) }
    for path in missing where next[path] == nil {
      next[path] = known[path] ?? WatchedFile(missing: path)
      next[path]?.rebase(.absent)
    }
    replace(with: next)
  }

  private func knownFiles() -> [String: WatchedFile] {
    Dictionary(files.map { ($0.path, $0) }, uniquingKeysWith: { first, _ in first })
  }

  private mutating func replace(with next: [String: WatchedFile]) {
    files = next.values.sorted { $0.path < $1.path }
    _ = watches.rebuild(for: files.map(\.path), newFolders: [])
    isNew = true
  }

  /// When `poll` should be called next; nil when there is nothing to wait for but events.
  package var nextDeadline: UInt64? {
    if isNew { return 0 }
    guard let first = firstEventNanoseconds else { return recheckNanoseconds }
    let settled = min(lastEventNanoseconds + Self.quietNanoseconds, first + Self.continuousNanoseconds)
    return min(settled, recheckNanoseconds ?? settled)
  }

  /// True when a reload should be triggered now: something changed, and nothing that is watched is half written. The
  /// content seen now is what later changes are compared with.
  package mutating func poll(now: UInt64) -> Bool {
    if isNew {
      isNew = false
      noteEvent(now: now)
    }
    guard let deadline = nextDeadline, now >= deadline else { return false }
    firstEventNanoseconds = nil
    recheckNanoseconds = nil
    var isChanged = false
    for index in files.indices {
      switch files[index].judge(now: now) {
      case .unchanged: continue
      case .changed: isChanged = true
      case .unfinished(let until): recheckNanoseconds = min(until, recheckNanoseconds ?? until)
      }
    }
    if recheckNanoseconds != nil { return false }
    if isChanged { for index in files.indices { files[index].accept() } }
    return isChanged
  }

  /// Takes what was read from `descriptor`: any number of whole events, as read(2) delivers them.
  package mutating func handle(bytes: UnsafeRawBufferPointer, now: UInt64) {
    var movesNames = false
    var offset = 0
    while bytes.count - offset >= Self.eventHeaderBytes {
      let watch = unsafe bytes.loadUnaligned(fromByteOffset: offset, as: CInt.self)
      let mask = unsafe bytes.loadUnaligned(fromByteOffset: offset + 4, as: UInt32.self)
      let nameBytes = unsafe Int(bytes.loadUnaligned(fromByteOffset: offset + 12, as: UInt32.self))
      let end = offset + Self.eventHeaderBytes + nameBytes
      if end > bytes.count { break }
      let name = unsafe bytes[(offset + Self.eventHeaderBytes)..<end].prefix { $0 != 0 }
      if unsafe note(watch: watch, mask: mask, name: String(decoding: name, as: UTF8.self), now: now) {
        movesNames = true
      }
      offset = end
    }
    if movesNames { rebuild(now: now) }
  }

  /// Notes one event. True when paths may lead elsewhere now.
  private mutating func note(watch: CInt, mask: UInt32, name: String, now: UInt64) -> Bool {
    if mask & UInt32(IN_Q_OVERFLOW) != 0 {
      for index in files.indices { files[index].doubt(now: now) }
      noteEvent(now: now)
      return true
    }
    // A watch that was taken back may still have events in the queue.
    guard let folder = watches.folders[watch] else { return false }
    if mask & FolderWatches.folderEnds != 0 {
      for interest in folder.interests.values.joined() {
        files[interest.file].note(mask: 0, isComplete: false, now: now)
      }
      noteEvent(now: now)
      return true
    }
    guard let interests = folder.interests[name] else { return false }
    let path = ScriptLocation.join(folder.path, name)
    let isComplete = mask & UInt32(IN_CREATE) != 0 && Self.isBornComplete(path)
    if mask & UInt32(IN_CREATE) != 0, mask & UInt32(IN_ISDIR) != 0 { newFolders.insert(path) }
    for interest in interests {
      files[interest.file].note(mask: interest.isLast ? mask : 0, isComplete: isComplete, now: now)
    }
    noteEvent(now: now)
    return mask & FolderWatches.nameChanges != 0
  }

  private mutating func noteEvent(now: UInt64) {
    firstEventNanoseconds = firstEventNanoseconds ?? now
    lastEventNanoseconds = now
  }

  private mutating func rebuild(now: UInt64) {
    let doubtful = watches.rebuild(for: files.map(\.path), newFolders: newFolders)
    newFolders.removeAll()
    for index in doubtful { files[index].doubt(now: now) }
  }

  /// A symbolic link and a second name of a file come into being with their content; any other new file is written
  /// after.
  private static func isBornComplete(_ path: String) -> Bool {
    var status = stat()
    guard unsafe lstat(path, &status) == 0 else { return false }
    return status.st_mode & S_IFMT == S_IFLNK || status.st_nlink > 1
  }
}
