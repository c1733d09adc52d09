// What a watcher knows about one path: its content as last reloaded and as last seen, and whether somebody is still
// writing it. Reads files, but gets no events itself and triggers nothing.

import Glibc

/// One path under watch.
struct WatchedFile {
  /// The content behind a path.
  enum Content: Equatable {
    case absent
    case unreadable(FileFailure)
    case hash(UInt64)
  }

  /// What must happen before the file's state may be acted on.
  enum Verdict: Equatable {
    case unchanged
    case changed
    /// Half written, or gone and perhaps about to come back: look again at this time (monotonic nanoseconds) or at the
    /// next event.
    case unfinished(until: UInt64)
  }

  /// Without a sign of life from a writer for 10 s its file counts as complete: nobody saves a script slower than that.
  static let silenceNanoseconds: UInt64 = 10_000_000_000
  /// A file that is gone gets 1 s to come back: programs that save by deleting and creating need less.
  static let absenceNanoseconds: UInt64 = 1_000_000_000
  /// A file that changed while it was read is read again after 100 ms.
  static let motionNanoseconds: UInt64 = 100_000_000
  /// A writer that holds the file open is asked after once a second, in case its end is no event in a watched folder.
  static let writerPollNanoseconds: UInt64 = 1_000_000_000

  let path: String
  private var baseline: Content
  private var latest: Content
  /// The stamp that belongs to `latest`, for not reading the file again.
  private var stamp: FileStamp?
  /// An event named the file since it was last looked at.
  private var isTouched = true
  /// A writer was seen at work, and not yet its end.
  private var isWriting = false
  /// Events may have been missed: if the content turns out to be another, somebody may be writing it.
  private var isDoubtful = false
  private var lastEventNanoseconds: UInt64 = 0

  /// A path with the content that is there now.
  init(asOnDisk path: String) {
    self.init(missing: path)
    look()
    baseline = latest
  }

  /// A path that was looked for in vain.
  init(missing path: String) {
    self.path = path
    (baseline, latest, stamp) = (.absent, .absent, nil)
  }

  /// A file as a snapshot read it.
  init(_ file: SourceFile) {
    path = file.path
    baseline = .hash(file.contentHash)
    (latest, stamp, isTouched) = (baseline, file.stamp, false)
  }

  /// Takes another content as the one that is running.
  mutating func rebase(_ content: Content) { baseline = content }

  /// An event that may concern the path: `mask` is what inotify said about the file itself, 0 when it was about the
  /// way.
  mutating func note(mask: UInt32, isComplete: Bool, now: UInt64) {
    isTouched = true
    lastEventNanoseconds = now
    if mask & UInt32(IN_MODIFY) != 0 { isWriting = true }
    if mask & UInt32(IN_CREATE) != 0, mask & UInt32(IN_ISDIR) == 0 { isWriting = !isComplete }
    if mask & UInt32(IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE) != 0 { isWriting = false }
    // From a file's birth or completion on, nothing about it was missed.
    if mask & UInt32(IN_CREATE | IN_CLOSE_WRITE | IN_MOVED_TO) != 0 { isDoubtful = false }
  }

  /// Events may be missing: the queue overflowed, or the folder was there before it could be watched.
  mutating func doubt(now: UInt64) {
    isTouched = true
    isDoubtful = true
    lastEventNanoseconds = now
  }

  /// Compares the disk with what is running.
  mutating func judge(now: UInt64) -> Verdict {
    look()
    // It moved under the reader's eyes: it has no content to compare yet.
    if latest == .unreadable(.changed) { return .unfinished(until: now + Self.motionNanoseconds) }
    let isChanged = latest != baseline
    if isDoubtful {
      isDoubtful = false
      if isChanged { isWriting = true }
    }
    if case .absent = latest {
      isWriting = false
      return isChanged ? wait(for: Self.absenceNanoseconds, now: now) : .unchanged
    }
    guard isChanged || isWriting else { return .unchanged }
    switch Self.writer(of: path) {
    case .none:
      isWriting = false
      return isChanged ? .changed : .unchanged
    case .some:
      // The writer is news: its silence begins now.
      if !isWriting { (isWriting, lastEventNanoseconds) = (true, now) }
      let verdict = wait(for: Self.silenceNanoseconds, now: now)
      guard case .unfinished(let end) = verdict else { return isChanged ? .changed : .unchanged }
      return .unfinished(until: min(end, now + Self.writerPollNanoseconds))
    case .unknown:
      let verdict = isWriting ? wait(for: Self.silenceNanoseconds, now: now) : .changed
      if verdict == .changed { isWriting = false }
      return verdict == .changed && !isChanged ? .unchanged : verdict
    }
  }

  /// What was seen last is what runs from now on.
  mutating func accept() { baseline = latest }

  private func wait(for span: UInt64, now: UInt64) -> Verdict {
    let end = lastEventNanoseconds + span
    return now >= end ? .changed : .unfinished(until: end)
  }

  /// Brings `latest` up to date, reading the file only when its stamp moved or an event named it.
  private mutating func look() {
    let current = FileStamp.of(path)
    if !isTouched, current == stamp { return }
    isTouched = false
    do throws(FileFailure) {
      let content = try FileContent.read(path, byteCountMax: SnapshotLimits.fileBytesMax)
      (latest, stamp) = (.hash(ContentHash.of(content.bytes)), content.stamp)
    } catch {
      stamp = current
      switch error {
      case .absent: latest = .absent
      case .changed: (latest, isTouched) = (.unreadable(.changed), true)
      default: latest = .unreadable(error)
      }
    }
  }

  /// Whether somebody is at work on a file.
  enum Writer {
    case none
    case some
    case unknown
  }

  /// Whether any process has the file open for writing. A read lease is granted only when none has (fcntl(2),
  /// F_SETLEASE); it is given back at once. Unknown for another user's file and on file systems without leases.
  static func writer(of path: String) -> Writer {
    let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    guard descriptor >= 0 else { return .unknown }
    defer { close(descriptor) }
    // A process that opens the file for writing in this very moment makes the kernel signal us, by default with SIGIO,
    // which kills; SIGURG is ignored unless somebody asks for it.
    guard fcntl(descriptor, setLeaseSignal, SIGURG) == 0 else { return .unknown }
    if fcntl(descriptor, setLease, CInt(F_RDLCK)) == 0 {
      _ = fcntl(descriptor, setLease, CInt(F_UNLCK))
      return .none
    }
    return errno == EAGAIN ? .some : .unknown
  }

  /// F_SETSIG and F_SETLEASE of <linux/fcntl.h>, which Glibc's module leaves out.
  private static let setLeaseSignal: CInt = 10
  private static let setLease: CInt = 1024
}
