// Finds the line `quit` in a stream of bytes, however it is split. Pure; must never know where the bytes go.

/// Passes bytes on unchanged until a line is exactly `quit`.
package struct QuitFilter {
  private static let lineEndings: [[UInt8]] = [Array("quit\n".utf8), Array("quit\r\n".utf8)]

  /// The beginning of a line that may still become `quit`; never longer than that line.
  private var held: [UInt8] = []
  private var isInsideLine = false

  package init() {}

  /// Appends what may go on to `output`. Returns whether the line was found; what follows it is dropped.
  package mutating func pass(_ bytes: some Collection<UInt8>, to output: inout [UInt8]) -> Bool {
    var rest = bytes[...]
    while let byte = rest.first {
      if isInsideLine {
        let end = rest.firstIndex(of: UInt8(ascii: "\n")).map { rest.index(after: $0) }
        output += rest[..<(end ?? rest.endIndex)]
        isInsideLine = end == nil
        rest = rest[(end ?? rest.endIndex)...]
        continue
      }
      rest = rest.dropFirst()
      held.append(byte)
      if Self.lineEndings.contains(held) {
        held = []
        return true
      }
      if !Self.lineEndings.contains(where: { $0.starts(with: held) }) {
        output += held
        isInsideLine = byte != UInt8(ascii: "\n")
        held = []
      }
    }
    return false
  }

  /// Lets go of what is held, because it is to be sent as it is: the user ended the line without a line end.
  package mutating func release(to output: inout [UInt8]) {
    guard !held.isEmpty else { return }
    output += held
    held = []
    isInsideLine = true
  }

  /// The input has ended: a last line without its end counts. Returns whether it was `quit`.
  package mutating func end(to output: inout [UInt8]) -> Bool {
    if held == Array("quit".utf8) || held == Array("quit\r".utf8) { return true }
    release(to: &output)
    return false
  }
}
