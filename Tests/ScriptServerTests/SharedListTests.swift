import TestSupport
import Testing

@testable import ScriptServer

@Suite("Shared lists")
struct SharedListTests {
  /// A value as text, with its kind.
  static func text(_ value: SharedValue) -> String {
    switch value {
    case .boolean(let flag): "\(flag)"
    case .integer(let integer): "i\(integer)"
    case .number(let number): "n\(number)"
    case .bytes(let bytes): "b" + String(decoding: bytes, as: UTF8.self)
    case .plain(let bytes): "p" + String(decoding: bytes, as: UTF8.self)
    }
  }

  @Test("random pushes, pops and ranges give what an array would", .seeded)
  func model() {
    var random = SeededGenerator()
    let list = SharedList()
    var model: [String] = []
    for round in 0..<20_000 {
      let end: SharedList.End = Bool.random(using: &random) ? .front : .back
      // Long lists in between, so that all sizes of blocks come up.
      if Int.random(in: 0..<(round / 1000 % 2 == 0 ? 3 : 8), using: &random) > 0 {
        let bytes = Array(String(repeating: "x", count: Int.random(in: 0..<20, using: &random)).utf8)
        bytes.withUnsafeBytes { content in
          let values: [SharedValue] = [
            .integer(Int64(round)), .number(Double(round) + 0.5), .boolean(round % 2 == 0), .bytes(content),
            .plain(content),
          ]
          let value = values.randomElement(using: &random)!
          let before = list.bytes
          let cost = list.cost(of: value, at: end)
          holds(list.push(value, at: end))
          holds(list.bytes == before + cost)
          model.insert(Self.text(value), at: end == .front ? 0 : model.count)
        }
      } else {
        let popped = list.pop(end, Self.text)
        holds(popped == (model.isEmpty ? nil : end == .front ? model.removeFirst() : model.removeLast()))
      }
      holds(list.count == model.count)
      if round % 100 == 0 {
        let first = Int.random(in: 0...model.count, using: &random)
        let last = Int.random(in: first...model.count, using: &random)
        var seen: [String] = []
        list.each(in: first..<last) { seen.append(Self.text($0)) }
        holds(seen == Array(model[first..<last]))
      }
    }
    while list.pop(.back, { _ in }) != nil {}
    holds(list.bytes == 0 && list.count == 0)
  }

  @Test("each end costs the same however long the list is")
  func long() {
    let list = SharedList()
    for number in 0..<1_000_000 { holds(list.push(.integer(Int64(number)), at: .front)) }
    holds(list.bytes < 18_000_000)
    for number in 0..<1_000_000 {
      holds(list.pop(.back, { Self.text($0) == "i\(number)" }) == true)
      if number > 1000 { break }
    }
    holds(list.count == 1_000_000 - 1002)
  }
}
