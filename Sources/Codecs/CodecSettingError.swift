// What is wrong with a codec's settings, said so that the author of a script can mend it. It must never be thrown for
// what a peer sends: that is a FrameError.

/// A setting that a codec cannot work with.
public struct CodecSettingError: Error, Equatable, Sendable, CustomStringConvertible {
  /// The codec's `type` as scripts write it, such as `"length"`.
  public let codec: String
  /// The option as scripts write it, such as `"max_length"`.
  public let option: String
  /// What is allowed, and what was given instead.
  public let problem: String

  /// The error for one option of one codec.
  public init(codec: String, option: String, problem: String) {
    self.codec = codec
    self.option = option
    self.problem = problem
  }

  /// One sentence: the codec, the option, what is allowed and what was given.
  public var description: String { "codec \"\(codec)\": \(option) \(problem)" }

  /// The error for an integer option outside `allowed`; `why` may add where a bound comes from.
  static func outside(
    _ allowed: ClosedRange<Int>, codec: String, option: String, given: Int, why: String = ""
  ) -> CodecSettingError {
    let range = "must be from \(allowed.lowerBound) to \(allowed.upperBound)"
    return CodecSettingError(codec: codec, option: option, problem: "\(range)\(why), not \(given)")
  }
}
