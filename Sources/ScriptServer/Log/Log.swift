// The server's log: swift-log's events to one descriptor, one event one line, never in the server's way. Does not
// decide what is logged.

import CompletionIO
import Glibc
import Logging

/// Where the log's lines go. For all threads; never raises and never blocks.
package final class LogSink: Sendable {
  private let format: LogFormat
  private let writer: LineWriter
  private let lock = ThreadLock()
  /// Guarded by `lock`.
  nonisolated(unsafe) private var repeats = RepeatTable()
  /// Dropped lines that a written line has told about already. Guarded by `lock`.
  nonisolated(unsafe) private var reportedLines = 0

  /// Lines in `format` to `descriptor`, which stays the caller's.
  package init(descriptor: CInt = STDERR_FILENO, format: LogFormat) {
    self.format = format
    writer =
      descriptor == STDERR_FILENO ? .standardError : LineWriter(descriptor: descriptor, patienceMilliseconds: 0)
  }

  /// Lines that were dropped since the start because nobody reads, the disk is full or the reader is behind.
  package var droppedLines: Int { writer.lostLines }

  /// Writes what is still owed: the counts of repeated events. For the server's tick and its end.
  package func flush() {
    flush(time: .now())
  }

  func flush(time: LogTime) {
    lock.withLock {
      var summaries: [RepeatTable.Summary] = []
      unsafe repeats.sweep(now: .max, summaries: &summaries)
      write(summaries, time: time)
    }
  }

  /// Logs one event: the `label` and everything the line says but its time make it the same event as another; where there is a
  /// `site`, only that and the place in the script do, since the rest may hold a client's id and words.
  func log(
    label: String, level: Logger.Level, message: String, metadata: Logger.Metadata, time: LogTime, site: LogSite? = nil
  ) {
    var line = LogLine(format: format, level: level, message: message, time: time)
    line.add(metadata)
    let hash = site?.hash(level, message) ?? line.hash(label: label)
    lock.withLock {
      var summaries: [RepeatTable.Summary] = []
      let isAdmitted = unsafe repeats.admit(
        hash, level: level, message: message, now: time.monotonicNanoseconds, summaries: &summaries)
      write(summaries, time: time)
      if isAdmitted { write(line) }
    }
  }

  private func write(_ summaries: [RepeatTable.Summary], time: LogTime) {
    for summary in summaries {
      let message = "repeated \(summary.count) times: \(summary.excerpt)"
      var line = LogLine(format: format, level: summary.level, message: message, time: time)
      line.add("repeated", summary.count)
      write(line)
    }
  }

  /// Writes one line, and on it how many were dropped before it.
  private func write(_ line: consuming LogLine) {
    let dropped = writer.lostLines
    let news = unsafe dropped - reportedLines
    if news > 0 { line.add("dropped", news) }
    let isWritten = unsafe line.finish().withUnsafeBytes { unsafe writer.write($0) }
    if isWritten { unsafe reportedLines = dropped }
  }
}

/// The line of the server's own code that logs, by which its events are told apart: what it says of one client or another, and
/// what a script says of their words, would make every line of a flood a new event.
struct LogSite {
  let file: String
  let line: UInt

  /// Equal for events of this line that have the same traceback, if any. Its functions and lines are the script's alone; the
  /// message before it may be a client's.
  func hash(_ level: Logger.Level, _ message: String) -> Int {
    var hasher = Hasher()
    hasher.combine(file)
    hasher.combine(line)
    hasher.combine(level)
    let heading = Array("\nstack traceback:".utf8)
    let text = Array(message.utf8)
    let starts = text.indices.dropLast(heading.count - 1)
    if let start = starts.last(where: { text[$0] == heading[0] && text[$0..<$0 + heading.count].elementsEqual(heading) }
    ) {
      hasher.combine(text[start...])
    }
    return hasher.finalize()
  }
}

/// swift-log's door to a `LogSink`.
package struct LineLogHandler: LogHandler {
  package var logLevel: Logger.Level
  package var metadata: Logger.Metadata = [:]
  package var metadataProvider: Logger.MetadataProvider?
  private let label: String
  private let sink: LogSink

  /// A logger's handler; `label` tells sources of equal messages apart.
  package init(label: String, level: Logger.Level, sink: LogSink) {
    self.label = label
    self.logLevel = level
    self.sink = sink
  }

  /// The source of what scripts log: their events are theirs to tell apart.
  static let scriptSource = "script"

  package subscript(metadataKey key: String) -> Logger.Metadata.Value? {
    get { metadata[key] }
    set { metadata[key] = newValue }
  }

  package func log(event: LogEvent) {
    var fields = metadata
    if let provided = metadataProvider?.get() { fields.merge(provided) { _, new in new } }
    if let own = event.metadata { fields.merge(own) { _, new in new } }
    if let error = event.error { fields["cause"] = "\(error)" }
    let site = event.source == Self.scriptSource ? nil : LogSite(file: event.file, line: event.line)
    sink.log(
      label: label, level: event.level, message: "\(event.message)", metadata: fields, time: .now(), site: site)
  }
}

/// Makes standard error the destination of every logger of this process, and SIGPIPE harmless. To be called once,
/// before the first `Logger` is made; swift-log stops the program at a second call.
@discardableResult
package func bootstrapLog(level: Logger.Level, format: LogFormat) -> LogSink {
  // A reader of the log that goes away must be an error of write(2), not the end of the server.
  signal(SIGPIPE, SIG_IGN)
  let sink = LogSink(format: format)
  LoggingSystem.bootstrap { LineLogHandler(label: $0, level: level, sink: sink) }
  return sink
}
