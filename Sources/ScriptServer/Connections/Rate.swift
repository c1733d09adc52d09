// How often something may happen: a token bucket as plain figures, and the buckets of client addresses, bounded. Must never
// know what is counted, nor read a clock.

/// A token bucket's settings: `burst` at once, and then one in each interval.
struct Rate: Sendable, Equatable {
  /// The time of one, in nanoseconds, at least 1.
  let intervalNanoseconds: UInt64
  /// How many may come at once, 1 to `burstMax`.
  let burst: Int

  /// More than a million at once is no limit; the time that so many take still fits any clock.
  static let burstMax = 1_000_000

  /// `perSecond` above 0. `burst` 0 means one second's worth, and at least one. nil when there is no limit.
  init?(perSecond: Double, burst: Int) {
    guard perSecond > 0 else { return nil }
    // Slower than one in a day is as good as never.
    intervalNanoseconds = UInt64(max(min(1e9 / perSecond, 86_400e9), 1))
    let usual = Int(min(max(perSecond.rounded(.up), 1), Double(Self.burstMax)))
    self.burst = min(burst > 0 ? burst : usual, Self.burstMax)
  }

  /// The time that a whole burst takes, in nanoseconds.
  var burstNanoseconds: UInt64 { intervalNanoseconds &* UInt64(burst) }
}

/// One bucket for each client address, in a table whose size never changes.
///
/// A bucket is the moment at which it will be full again, so that an address that has been quiet needs no entry. Where more
/// addresses are active than there is room for, the one that is nearest to being full is forgotten: that lets it have its
/// burst anew, and never keeps anybody out.
final class AddressRates {
  /// Addresses that share a row; a newcomer takes the place of the quietest.
  private static let rowEntries = 8
  /// 65,536 addresses in a megabyte: more active ones than a listener can accept of in a second.
  private static let rows = 8192

  private struct Entry {
    var address: UInt64 = 0
    var fullAt: UInt64 = 0
  }

  private var entries = [Entry](repeating: Entry(), count: rows * rowEntries)

  /// How many addresses the table has room for.
  static var addressesMax: Int { rows * rowEntries }

  /// Takes one token of `address` at time `now`; false when there is none. `address` is a hash that nobody outside can
  /// choose.
  func take(_ address: UInt64, _ rate: Rate, now: UInt64) -> Bool {
    let row = Int(address % UInt64(Self.rows)) * Self.rowEntries
    var chosen = row
    for index in row..<row + Self.rowEntries {
      if entries[index].address == address {
        chosen = index
        break
      }
      if entries[index].fullAt < entries[chosen].fullAt { chosen = index }
    }
    let isKnown = entries[chosen].address == address
    let fullAt = (isKnown ? max(entries[chosen].fullAt, now) : now) &+ rate.intervalNanoseconds
    guard fullAt <= now &+ rate.burstNanoseconds else { return false }
    entries[chosen] = Entry(address: address, fullAt: fullAt)
    return true
  }
}
