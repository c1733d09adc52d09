// How much of a turn one kind of work may take: a storm of short handlers, from wherever they come, must leave sockets, timers and
// other workers' messages a chance between.

import CompletionIO

/// So many pieces of work, or so long, whichever is less.
struct TurnShare {
  /// Long enough that a turn's own cost is small beside it, and short beside what anybody notices.
  private static let nanosecondsMax: UInt64 = 10_000_000
  /// The clock is looked at after so many pieces: a handful of short handlers costs no look.
  private static let piecesPerLook = 16

  /// Pieces that are left.
  private(set) var left: Int
  private var sinceLook = 0
  /// When the time is up; not known before the first look where it begins with that.
  private var until: UInt64?

  /// A share whose time begins with its first look, or one of pieces alone.
  init(atMost pieces: Int = .max, isTimed: Bool = true) {
    left = pieces
    if !isTimed { until = .max }
  }

  /// A share whose time began at `start`, by the port's clock.
  init(from start: UInt64) {
    left = .max
    until = start &+ Self.nanosecondsMax
  }

  /// For work that has no next turn.
  static let unlimited = TurnShare(from: .max - nanosecondsMax)

  /// Whether the rest is to wait for the next turn.
  var isUsedUp: Bool { left <= 0 }

  /// Counts pieces that were done.
  mutating func spend(_ pieces: Int = 1) {
    left -= pieces
    sinceLook += pieces
    if sinceLook >= Self.piecesPerLook { look() }
  }

  /// Looks whether the time is up.
  mutating func look() {
    sinceLook = 0
    let clock = CompletionPort.clock()
    guard let until else {
      until = clock &+ Self.nanosecondsMax
      return
    }
    if clock >= until { left = 0 }
  }
}
