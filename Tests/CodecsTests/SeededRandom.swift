// Random numbers that a seed reproduces. A failing test prints its seed.

import Glibc

/// SplitMix64: small, fast, and good enough to choose inputs with.
struct SeededRandom: RandomNumberGenerator {
  private var state: UInt64

  init(seed: UInt64) {
    state = seed
  }

  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var mixed = state
    mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
    mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
    return mixed ^ (mixed >> 31)
  }

  /// True once in `times` on average.
  mutating func once(in times: Int) -> Bool {
    Int.random(in: 0..<times, using: &self) == 0
  }

  /// Bytes chosen from `alphabet`.
  mutating func bytes(_ count: Int, from alphabet: [UInt8]) -> [UInt8] {
    (0..<count).map { _ in alphabet.randomElement(using: &self) ?? 0 }
  }

  /// Chunk sizes that add up to `count`, each at most `chunkMax`.
  mutating func chunks(of count: Int, chunkMax: Int) -> [Int] {
    var chunks: [Int] = []
    var rest = count
    while rest > 0 {
      let chunk = Int.random(in: 1...min(rest, chunkMax), using: &self)
      chunks.append(chunk)
      rest -= chunk
    }
    return chunks
  }
}

/// A number from the environment, or nil when it is not set or not a number.
func environmentNumber<Number: LosslessStringConvertible>(_ name: String) -> Number? {
  getenv(name).flatMap { Number(String(cString: $0)) }
}
