// What the fuzz tests of the admin socket's two sides share: how long they run, and how messages are made and damaged.
//
// Must never know: what a decoder makes of them.

import Glibc
import ScriptServer
import TestSupport

/// A run of cases, each with a seed of its own: MOONPORT_FUZZ_SECONDS sets how long (default 2), MOONPORT_SEED is the seed of the first
/// case, so that the seed in a failure's text repeats that case at once.
struct FuzzRun {
  private static let secondsDefault = 2.0

  let seed = SeededTrait.current
  private(set) var cases: UInt64 = 0
  private let end: ContinuousClock.Instant

  init(_ name: String) {
    let text = getenv("MOONPORT_FUZZ_SECONDS").map { String(cString: $0) }
    end = .now + .seconds(text.flatMap(Double.init) ?? Self.secondsDefault)
    // Before the first case, since one that traps prints nothing any more.
    print("\(name): begins with seed \(seed)")
  }

  /// The generator of the next case, nil when the time is over; there is always a first one.
  mutating func next() -> SeededGenerator? {
    if cases > 0, ContinuousClock.now >= end { return nil }
    defer { cases += 1 }
    return SeededGenerator(seed: seed &+ cases)
  }
}

/// Throws unless `condition` holds; `problem` begins with how to repeat the case.
func requireInCase(_ random: SeededGenerator, _ condition: Bool, _ problem: @autoclosure () -> String) throws {
  if !condition { throw TestFailure("run again with MOONPORT_SEED=\(random.seed): \(problem())") }
}

extension SeededGenerator {
  /// True once in `times` on average.
  mutating func once(in times: Int) -> Bool { Int.random(in: 0..<times, using: &self) == 0 }

  /// One of `choices`, which are not empty.
  mutating func pick<Element>(_ choices: [Element]) -> Element {
    choices[Int.random(in: 0..<choices.count, using: &self)]
  }

  /// Sizes that add up to `count`, each from 1 to `chunkMax`.
  mutating func chunks(of count: Int, chunkMax: Int) -> [Int] {
    var chunks: [Int] = []
    var rest = count
    while rest > 0 {
      chunks.append(Int.random(in: 1...min(rest, chunkMax), using: &self))
      rest -= chunks[chunks.count - 1]
    }
    return chunks
  }

  /// A word of a message: of people, of scripts, of attackers, and of none of them.
  mutating func word() -> [UInt8] {
    let known = [
      "", "json", "1", "0", "-1", "+1", "1.5", "1e400", "nan", "-0.0", "604800", "9223372036854775807",
      "9223372036854775808",
      "9:5:hello,,", "ü 日本 \u{1F600}", "\u{1b}[2J", "a\0b", "line\nline",
      "e" + String(repeating: "\u{301}", count: 200),
    ]
    switch Int.random(in: 0..<4, using: &self) {
    case 0: return bytes(Int.random(in: 0...12, using: &self))
    case 1: return [UInt8](repeating: UInt8(ascii: "w"), count: Int.random(in: 0...300, using: &self))
    default: return Array(pick(known).utf8)
    }
  }

  /// `parts` as netstrings in a netstring, one of the lengths wrong now and then.
  mutating func message(_ parts: [[UInt8]]) -> [UInt8] {
    var payload: [UInt8] = []
    for part in parts { payload += netstring(part) }
    return netstring(payload)
  }

  private mutating func netstring(_ payload: [UInt8]) -> [UInt8] {
    guard once(in: 40) else { return AdminProtocol.netstring(payload) }
    return Array(length(near: payload.count).utf8) + Array(":".utf8) + payload + Array(",".utf8)
  }

  /// A length that is wrong or written wrongly: off by a little, at the edges of integers and limits, or no number.
  private mutating func length(near count: Int) -> String {
    let edges = [
      "", "0", "00", "-1", "+1", " 1", "0x10", "1e3", "65535", "1048575", "1048576", "1048577", "67108863", "67108864",
      "67108865", "99999999", "2147483647", "2147483648", "4294967296", "9223372036854775807", "9223372036854775808",
      "18446744073709551616", "99999999999999999999999999",
    ]
    switch Int.random(in: 0..<4, using: &self) {
    case 0: return "0\(count)"
    case 1: return pick(edges)
    default: return "\(max(0, count + pick([-2, -1, 1, 2, 8])))"
    }
  }

  /// Damages `stream` in a few places, or cuts it, or lets something follow.
  mutating func damage(_ stream: inout [UInt8]) {
    let alphabet = Array("0123456789:,,::".utf8) + [0, 0x2d, 0x7f, 0x80, 0xc3, 0xff]
    for _ in 0..<Int.random(in: 1...4, using: &self) where !stream.isEmpty {
      let place = Int.random(in: 0..<stream.count, using: &self)
      let end = min(stream.count, place + Int.random(in: 1...5, using: &self))
      switch Int.random(in: 0..<8, using: &self) {
      case 0: stream[place] = UInt8.random(in: .min ... .max, using: &self)
      case 1, 2: stream[place] = pick(alphabet)
      case 3: stream.insert(pick(alphabet), at: place)
      case 4: stream.removeSubrange(place..<end)
      case 5: stream.insert(contentsOf: Array(stream[place..<end]), at: place)
      case 6: stream.removeSubrange(place...)
      default: stream += once(in: 2) ? stream : bytes(Int.random(in: 1...20, using: &self))
      }
    }
  }
}
