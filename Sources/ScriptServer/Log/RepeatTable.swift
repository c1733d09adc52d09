// Notices that one event is logged over and over, so that a flood becomes ten lines and a count each second. Counts
// keys; neither renders nor writes lines.

import Logging

/// Recently seen events by the hash of what they say. A value type for one thread or under a lock.
struct RepeatTable {
  /// Ten identical lines a second show that something repeats.
  static let linesPerSecondMax = 10
  /// 128 events at a time: more different floods at once are not repeats any more.
  static let entriesMax = 128
  /// A second, in nanoseconds.
  static let windowNanoseconds: UInt64 = 1_000_000_000
  /// Enough of the message to recognise it in its count.
  static let excerptBytesMax = 256

  /// What was held back of one event.
  struct Summary {
    let level: Logger.Level
    let excerpt: String
    let count: Int
  }

  private struct Entry {
    let level: Logger.Level
    let excerpt: String
    let startNanoseconds: UInt64
    var lines = 1
    var suppressed = 0
  }

  private var entries: [Int: Entry] = [:]
  private var sweepNanoseconds: UInt64 = 0

  /// Counts one event; true when its line should be written. `summaries` gets what earlier events still owe.
  mutating func admit(
    _ hash: Int, level: Logger.Level, message: String, now: UInt64, summaries: inout [Summary]
  ) -> Bool {
    if now >= sweepNanoseconds { sweep(now: now, summaries: &summaries) }
    if let entry = entries[hash], now < entry.startNanoseconds + Self.windowNanoseconds {
      let isAdmitted = entry.lines < Self.linesPerSecondMax
      if isAdmitted { entries[hash]?.lines += 1 } else { entries[hash]?.suppressed += 1 }
      return isAdmitted
    }
    remove(hash, summaries: &summaries)
    if entries.count >= Self.entriesMax { removeOldest(summaries: &summaries) }
    let excerpt = Self.excerpt(of: message)
    entries[hash] = Entry(level: level, excerpt: excerpt, startNanoseconds: now)
    return true
  }

  /// Removes what is over a second old; `.max` removes everything.
  mutating func sweep(now: UInt64, summaries: inout [Summary]) {
    let expired = entries.filter { now == .max || now >= $0.value.startNanoseconds + Self.windowNanoseconds }
    for hash in expired.keys { remove(hash, summaries: &summaries) }
    if now != .max { sweepNanoseconds = now + Self.windowNanoseconds }
  }

  private mutating func remove(_ hash: Int, summaries: inout [Summary]) {
    guard let entry = entries.removeValue(forKey: hash), entry.suppressed > 0 else { return }
    summaries.append(Summary(level: entry.level, excerpt: entry.excerpt, count: entry.suppressed))
  }

  private mutating func removeOldest(summaries: inout [Summary]) {
    guard let oldest = entries.min(by: { $0.value.startNanoseconds < $1.value.startNanoseconds }) else { return }
    remove(oldest.key, summaries: &summaries)
  }

  private static func excerpt(of message: String) -> String {
    var message = message
    return message.withUTF8 { bytes in
      let bytes = UnsafeRawBufferPointer(bytes)
      return unsafe String(decoding: bytes[..<UTF8Step.cut(bytes, limit: excerptBytesMax)], as: UTF8.self)
    }
  }
}
