// Random and mutated streams against random codec settings. MOONPORT_FUZZ_SECONDS sets how long (default 2),
// MOONPORT_FUZZ_SEED repeats one run.

import Codecs
import Testing

struct CodecFuzzTests {
  private static let secondsDefault = 2.0

  @Test func `random streams decode the same however they are split, within the memory bound`() throws {
    let seconds: Double = environmentNumber("MOONPORT_FUZZ_SECONDS") ?? Self.secondsDefault
    let seed: UInt64 = environmentNumber("MOONPORT_FUZZ_SEED") ?? UInt64.random(in: .min ... .max)
    var random = SeededRandom(seed: seed)
    var streams = 0
    var messages = 0
    var failures = 0
    let end = ContinuousClock.now + .seconds(seconds)
    repeat {
      let codec = try random.codec()
      let stream = random.stream(for: codec)
      let decoded = try check(stream, codec, &random, seed: seed)
      streams += 1
      messages += decoded.messages.count
      failures += decoded.ending == .open ? 0 : 1
    } while ContinuousClock.now < end
    print("codec fuzz: seed \(seed), \(streams) streams, \(messages) messages, \(failures) refused")
  }

  private func check(
    _ stream: [UInt8], _ codec: Codec, _ random: inout SeededRandom, seed: UInt64
  ) throws -> Decoded {
    let expected = referenceDecode(stream, codec)
    guard !stream.isEmpty else { return expected }
    var splits = [[stream.count], Array(repeating: 1, count: stream.count)]
    for _ in 0..<4 {
      splits.append(random.chunks(of: stream.count, chunkMax: Int.random(in: 1...stream.count, using: &random)))
    }
    for chunks in splits {
      do {
        let decoded = try StreamDriver.decode(stream, codec, chunks: chunks)
        if decoded != expected { throw BrokenInvariant(description: "\(decoded) instead of \(expected)") }
      } catch {
        throw BrokenInvariant(description: "seed \(seed), \(codec), stream \(stream), split \(chunks): \(error)")
      }
    }
    return expected
  }
}

extension SeededRandom {
  /// A codec with small limits, so that short streams reach them.
  fileprivate mutating func codec() throws -> Codec {
    let maxLength = Int.random(in: 1...(once(in: 3) ? 120 : 12), using: &self)
    switch Int.random(in: 0..<5, using: &self) {
    case 0:
      return .line(maxLength: maxLength)
    case 1:
      let count = once(in: 2) ? Int.random(in: 1...3, using: &self) : Int.random(in: 1...16, using: &self)
      return .delimiter(try Delimiter(validating: bytes(count, from: [97, 98])), maxLength: maxLength)
    case 2:
      return .fixed(length: maxLength)
    case 3:
      return .netstring(maxLength: maxLength)
    default:
      return lengthFieldCodec()
    }
  }

  /// Draws settings until some are accepted; refused ones must be refused by an error.
  private mutating func lengthFieldCodec() -> Codec {
    while true {
      let extreme = [Int.min, -Int.max, Int.max, 0x7fff_ffff, -0x8000_0000].randomElement(using: &self) ?? 0
      let field = try? LengthField(
        size: Int.random(in: 0...9, using: &self),
        endian: once(in: 2) ? .big : .little,
        offset: Int.random(in: 0...4, using: &self),
        adjustment: once(in: 10) ? extreme : Int.random(in: -10...4, using: &self),
        strip: once(in: 2) ? nil : Int.random(in: -1...12, using: &self),
        maxLength: once(in: 20) ? extreme : Int.random(in: 1...100, using: &self))
      if let field { return .lengthField(field) }
    }
  }

  /// Messages as a good peer sends them, then a few mutations, then noise.
  fileprivate mutating func stream(for codec: Codec) -> [UInt8] {
    var stream: [UInt8] = []
    for _ in 0..<Int.random(in: 0...8, using: &self) {
      stream += frame(for: codec)
    }
    if once(in: 2) {
      for _ in 0..<Int.random(in: 1...3, using: &self) { mutate(&stream, codec) }
    }
    if once(in: 2) {
      stream += bytes(Int.random(in: 0...40, using: &self), from: alphabet(of: codec))
    }
    return stream
  }

  /// One frame, its length near the limit now and then.
  private mutating func frame(for codec: Codec) -> [UInt8] {
    let limit = min(codec.maxLength, 200)
    let count =
      once(in: 3) ? max(0, limit + Int.random(in: -2...1, using: &self)) : Int.random(in: 0...limit, using: &self)
    let payload = bytes(count, from: once(in: 2) ? alphabet(of: codec) : Array(0...255))
    switch codec {
    case .raw, .fixed:
      return payload
    case .line:
      return payload + (once(in: 2) ? [13, 10] : [10])
    case .delimiter(let delimiter, _):
      return payload + delimiter.withUnsafeBytes { Array($0) }
    case .netstring:
      return Array("\(count):".utf8) + payload + [UInt8(ascii: ",")]
    case .lengthField(let field):
      return bytes(field.offset, from: [0xaa]) + encoded(count, field) + payload
    }
  }

  /// The field of a frame with `count` bytes behind it, rarely a value from the edges of its range.
  private mutating func encoded(_ count: Int, _ field: LengthField) -> [UInt8] {
    let edges: [UInt64] = [0, 1 << 31, 1 << 32, 1 << 63, (1 << 63) - 1, (1 << 63) - 12, .max]
    let value =
      once(in: 15)
      ? edges.randomElement(using: &self) ?? 0 : UInt64(bitPattern: Int64(count &- field.adjustment))
    let bytes = (0..<field.size).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
    return field.endian == .little ? bytes : bytes.reversed()
  }

  /// Changes, removes, inserts or doubles a few bytes.
  private mutating func mutate(_ stream: inout [UInt8], _ codec: Codec) {
    guard !stream.isEmpty else { return }
    let place = Int.random(in: 0..<stream.count, using: &self)
    let end = min(stream.count, place + Int.random(in: 1...4, using: &self))
    switch Int.random(in: 0..<4, using: &self) {
    case 0: stream[place] = UInt8.random(in: 0...255, using: &self)
    case 1: stream.removeSubrange(place..<end)
    case 2: stream.insert(contentsOf: bytes(end - place, from: alphabet(of: codec)), at: place)
    default: stream.insert(contentsOf: Array(stream[place..<end]), at: place)
    }
  }

  /// The bytes that mean something to the codec, and one that does not.
  private func alphabet(of codec: Codec) -> [UInt8] {
    switch codec {
    case .raw, .fixed: [0, 120]
    case .line: [10, 13, 13, 120, 120, 120]
    case .delimiter: [97, 98, 97, 98, 120]
    case .netstring: Array("0123:,,x".utf8)
    case .lengthField: [0, 0, 0, 1, 2, 3, 0x7f, 0x80, 0xff]
    }
  }
}
