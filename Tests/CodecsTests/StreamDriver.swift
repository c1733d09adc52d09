// Drives a FrameDecoder as a connection does: reads arrive in pieces, what completes no message is kept in an
// InboundBuffer. Every invariant of the interface is checked on the way.

import Codecs

/// A promise of FrameDecoder or InboundBuffer that was broken.
struct BrokenInvariant: Error, CustomStringConvertible {
  let description: String
}

private func require(_ condition: Bool, _ description: @autoclosure () -> String) throws {
  if !condition { throw BrokenInvariant(description: description()) }
}

struct StreamDriver {
  let codec: Codec
  var decoder = FrameDecoder()
  var decoded = Decoded()
  /// The most bytes that were held at any time, the read included.
  var heldMax = 0

  init(_ codec: Codec) {
    self.codec = codec
  }

  /// Decodes `stream` in reads of the given sizes.
  static func decode(_ stream: [UInt8], _ codec: Codec, chunks: [Int]) throws -> Decoded {
    var driver = StreamDriver(codec)
    try driver.run(stream, chunks: chunks)
    return driver.decoded
  }

  mutating func run(_ stream: [UInt8], chunks: [Int]) throws {
    var buffer = InboundBuffer()
    var position = 0
    let readMax = chunks.max() ?? 1
    for chunk in chunks {
      // A block of its own for each read, so that the address sanitizer sees a look beyond it.
      let read = UnsafeMutableRawBufferPointer.allocate(byteCount: chunk, alignment: 1)
      defer { read.deallocate() }
      read.copyBytes(from: stream[position..<(position + chunk)])
      position += chunk
      try receive(UnsafeRawBufferPointer(read), &buffer, readMax: readMax)
      if decoded.ending != .open { return }
    }
  }

  /// One read: cut off what is complete, keep the rest.
  private mutating func receive(
    _ read: UnsafeRawBufferPointer, _ buffer: inout InboundBuffer, readMax: Int
  ) throws {
    let limit = codec.unconsumedMax + readMax
    if buffer.isEmpty {
      let consumed = try cutAll(read)
      if decoded.ending != .open { return }
      try require(buffer.append(UnsafeRawBufferPointer(rebasing: read[consumed...]), limit: limit), "no memory")
    } else {
      try require(buffer.append(read, limit: limit), "no memory")
      heldMax = max(heldMax, buffer.count)
      try require(buffer.capacity <= limit, "capacity \(buffer.capacity) over \(limit)")
      buffer.consume(try cutAll(buffer.bytes))
      if decoded.ending != .open { return }
    }
    heldMax = max(heldMax, buffer.count)
    try require(buffer.count <= codec.unconsumedMax, "\(buffer.count) bytes kept, allowed \(codec.unconsumedMax)")
    try require(buffer.capacity <= limit, "capacity \(buffer.capacity) over \(limit)")
  }

  /// Cuts messages off until the bytes are incomplete or wrong; returns how many bytes were consumed.
  private mutating func cutAll(_ bytes: UnsafeRawBufferPointer) throws -> Int {
    var consumed = 0
    while true {
      let rest = UnsafeRawBufferPointer(rebasing: bytes[consumed...])
      let step = decoder.next(codec, in: rest)
      switch step {
      case .message(let payload, let count):
        try require(count > 0 && count <= rest.count, "consumed \(count) of \(rest.count)")
        try require(payload.lowerBound >= 0 && payload.upperBound <= count, "\(payload) outside 0..<\(count)")
        try require(payload.count <= codec.maxLength, "a payload of \(payload.count) passed")
        decoded.messages.append(Array(rest[payload]))
        consumed += count
      case .incomplete:
        var again = decoder
        try require(again.next(codec, in: rest) == .incomplete, "incomplete, and not when asked again")
        return consumed
      case .failed(let error):
        try require(decoder.next(codec, in: rest) == step, "failed, and not when asked again")
        switch error {
        case .tooLong: decoded.ending = .tooLong
        case .malformed: decoded.ending = .malformed
        }
        return consumed
      }
    }
  }
}

/// Decodes `text` in one read.
func decode(_ text: String, _ codec: Codec) throws -> Decoded {
  try decode(Array(text.utf8), codec)
}

/// Decodes `bytes` in one read.
func decode(_ bytes: [UInt8], _ codec: Codec) throws -> Decoded {
  try StreamDriver.decode(bytes, codec, chunks: [bytes.count])
}

/// What is expected of a stream.
func messages(_ texts: String..., then ending: Ending = .open) -> Decoded {
  Decoded(messages: texts.map { Array($0.utf8) }, ending: ending)
}

/// Decodes `stream` whole, byte by byte, split once at every place and in thousands of random pieces; throws unless
/// all agree with the reference.
func checkAllSplits(_ stream: [UInt8], _ codec: Codec, seed: UInt64, randomSplits: Int = 2000) throws {
  let expected = referenceDecode(stream, codec)
  func check(_ chunks: [Int]) throws {
    let decoded = try StreamDriver.decode(stream, codec, chunks: chunks)
    guard decoded == expected else {
      throw BrokenInvariant(
        description: "seed \(seed), \(codec), split \(chunks): \(decoded) instead of \(expected) from \(stream)")
    }
  }
  guard !stream.isEmpty else { return }
  try check([stream.count])
  try check(Array(repeating: 1, count: stream.count))
  for place in 1..<max(stream.count, 2) where place < stream.count {
    try check([place, stream.count - place])
  }
  var random = SeededRandom(seed: seed)
  for _ in 0..<randomSplits {
    try check(random.chunks(of: stream.count, chunkMax: Int.random(in: 1...stream.count, using: &random)))
  }
}
