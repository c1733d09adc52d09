import Synchronization
import TestSupport
import Testing

@testable import ScriptServer

@Suite("Shared dictionaries")
struct SharedDictionaryTests {
  @Test("values come back as they were stored")
  func values() {
    let dictionary = TestDictionary()
    for (value, text) in [
      (SharedValue.boolean(false), "false"), (.integer(.min), "i\(Int64.min)"), (.number(3), "n3.0"),
      (.integer(3), "i3"),
      (.number(.infinity), "ninf"), (.boolean(true), "true"),
    ] {
      holds(dictionary.store("k", value) == "done")
      holds(dictionary.get("k") == text)
    }
    for text in ["", "a", String(repeating: "long", count: 10_000)] {
      holds(dictionary.store("k", text) == "done")
      holds(dictionary.get("k") == "b" + text)
    }
    holds(dictionary.store("", "empty key") == "done" && dictionary.get("") == "bempty key")
    holds(dictionary.shared.count() == 2)
  }

  @Test("add, replace and delete go by whether the key is there")
  func modes() {
    let dictionary = TestDictionary()
    holds(dictionary.store("k", "1", .replace) == "not found")
    holds(dictionary.store("k", "2", .add) == "done")
    holds(dictionary.store("k", "3", .add) == "exists")
    holds(dictionary.store("k", "4", .replace) == "done")
    holds(dictionary.get("k") == "b4")
    holds(dictionary.with("k") { dictionary.shared.delete($0) })
    holds(!dictionary.with("k") { dictionary.shared.delete($0) })
    holds(dictionary.get("k") == nil && dictionary.shared.usedBytes == 0)
  }

  @Test("increments keep integers integers, and neither pass 64 bits nor touch what is no number")
  func increments() {
    let dictionary = TestDictionary()
    holds(dictionary.increment("k", .integer(1)) == "not found")
    holds(dictionary.increment("k", .integer(2), .integer(40)) == "i42")
    holds(dictionary.increment("k", .integer(-2), .integer(0)) == "i40")
    holds(dictionary.increment("k", .number(0.5)) == "n40.5")
    holds(dictionary.increment("k", .integer(1)) == "n41.5")
    dictionary.store("k", .integer(.max - 1))
    holds(dictionary.increment("k", .integer(1)) == "i\(Int64.max)")
    holds(dictionary.increment("k", .integer(1)) == "overflow")
    holds(dictionary.get("k") == "i\(Int64.max)")
    dictionary.store("k", "1")
    holds(dictionary.increment("k", .integer(1)) == "not a number")
    holds(dictionary.increment("new", .integer(1), .integer(0), ttl: 10) == "i1" && dictionary.ttl("new") == 10)
    holds(dictionary.increment("new", .integer(1), .integer(0), ttl: 99) == "i2" && dictionary.ttl("new") == 10)
  }

  @Test("compare and set changes what is expected and nothing else, and leaves the time to live")
  func compareAndSet() {
    let dictionary = TestDictionary()
    holds(dictionary.cas("k", .integer(1), .integer(2)) == "not found")
    holds(dictionary.cas("k", nil, .integer(1)) == "done")
    holds(dictionary.cas("k", nil, .integer(5)) == "changed")
    holds(dictionary.cas("k", .number(1), .integer(2), .nanoseconds(5_000_000)) == "done")
    holds(dictionary.cas("k", .number(2.5), .integer(9)) == "changed")
    holds(dictionary.cas("k", .boolean(true), .integer(9)) == "changed")
    holds(dictionary.cas("k", .integer(2), .boolean(true)) == "done")
    holds(dictionary.ttl("k") == 5)
    holds(dictionary.cas("k", .boolean(true), nil) == "done" && dictionary.get("k") == nil)
    dictionary.store("k", "text")
    holds(dictionary.with("text") { dictionary.cas("k", .bytes($0), .integer(0)) } == "done")
  }

  // MARK: Time

  @Test("a key is gone from the moment its time is over, and not before")
  func expiry() {
    let dictionary = TestDictionary()
    dictionary.store("k", "v", ttl: 5)
    dictionary.store("other", "w")
    dictionary.pass(milliseconds: 4.999999)
    holds(dictionary.get("k") == "bv" && dictionary.ttl("k") == 1e-6 && dictionary.shared.count() == 2)
    dictionary.pass(milliseconds: 0.000001)
    holds(dictionary.get("k") == nil && dictionary.ttl("k") == nil && dictionary.keys() == ["other"])
    holds(dictionary.store("k", "x", .replace) == "not found")
    holds(dictionary.store("k", "y", .add) == "done" && dictionary.ttl("k") == 0)
    dictionary.pass(milliseconds: 1e9)
    holds(dictionary.get("k") == "by")
  }

  @Test("expired keys are as missing for every call")
  func expiredIsMissing() {
    let dictionary = TestDictionary()
    func again() {
      dictionary.store("k", .integer(1), ttl: 1)
      dictionary.pass(milliseconds: 1)
    }
    again()
    holds(dictionary.increment("k", .integer(1)) == "not found")
    again()
    holds(dictionary.increment("k", .integer(1), .integer(10)) == "i11" && dictionary.ttl("k") == 0)
    again()
    holds(dictionary.cas("k", .integer(1), .integer(2)) == "not found")
    again()
    holds(dictionary.cas("k", nil, .integer(2)) == "done" && dictionary.ttl("k") == 0)
    again()
    holds(!dictionary.with("k") { dictionary.shared.delete($0) })
    again()
    holds(!dictionary.with("k") { dictionary.shared.expire($0, .nanoseconds(0)) })
    again()
    holds(dictionary.shared.count() == 0)
    again()
    if case .count(1) = dictionary.with("k", { dictionary.shared.push($0, .integer(1), at: .back) }) {
    } else {
      holds(false)
    }
  }

  @Test("a new time to live takes the place of the old one, in place or not")
  func newTime() {
    let dictionary = TestDictionary()
    dictionary.store("k", .integer(1), ttl: 10)
    dictionary.store("k", .integer(2), ttl: 20)
    holds(dictionary.ttl("k") == 20)
    dictionary.store("k", .integer(3))
    holds(dictionary.ttl("k") == 0)
    holds(dictionary.with("k") { dictionary.shared.expire($0, .nanoseconds(7_000_000)) })
    dictionary.pass(milliseconds: 6)
    dictionary.store("k", "text", ttl: 3)
    dictionary.pass(milliseconds: 2)
    holds(dictionary.get("k") == "btext" && dictionary.ttl("k") == 1)
    dictionary.pass(milliseconds: 1)
    holds(dictionary.get("k") == nil && dictionary.shared.count() == 0)
  }

  @Test("what has expired is removed two for each change, by counting, and when it is asked for")
  func removal() {
    let dictionary = TestDictionary()
    for number in 0..<2000 { dictionary.store("\(number)", .integer(0), ttl: 1) }
    dictionary.store("stays", .integer(0))
    dictionary.pass(milliseconds: 1)
    dictionary.store("stays", .integer(1))
    holds(dictionary.shared.table.count == 1999)
    holds(dictionary.shared.flushExpired(limit: 10) == 10 && dictionary.shared.table.count == 1989)
    holds(dictionary.shared.count() == 1 && dictionary.shared.table.count == 1989 - 1024)
    holds(dictionary.shared.flushExpired(limit: 0) == 1988 - 1024 && dictionary.shared.table.count == 1)
  }

  // MARK: Memory

  /// A dictionary in which exactly `count` keys of one letter with integers have room.
  private func full(_ count: Int) -> TestDictionary {
    let dictionary = TestDictionary(capacityBytes: count * (SharedEntry.overheadBytes + 1))
    for index in 0..<count { holds(dictionary.store(Self.name(index), .integer(0)) == "done") }
    return dictionary
  }

  private static func name(_ index: Int) -> String { String(UnicodeScalar(UInt8(97 + index))) }

  @Test("the least recently used goes first, be it stored or read, and the caller is told")
  func leastRecentlyUsed() {
    let dictionary = full(4)
    holds(dictionary.get("a") != nil)
    holds(dictionary.store("b", .integer(1)) == "done")
    holds(dictionary.store("x", .integer(0)) == "forcible" && dictionary.keys() == ["a", "b", "d", "x"])
    holds(dictionary.store("y", .integer(0)) == "forcible" && dictionary.keys() == ["a", "b", "x", "y"])
    holds(dictionary.store("z", .integer(0)) == "forcible" && dictionary.keys() == ["b", "x", "y", "z"])
    holds(dictionary.shared.evictions == 3)
  }

  @Test("what has expired goes before what was not used for long")
  func expiredFirst() {
    let dictionary = full(4)
    dictionary.store("d", .integer(0), ttl: 1)
    dictionary.pass(milliseconds: 1)
    holds(dictionary.store("x", .integer(0)) == "done" && dictionary.keys() == ["a", "b", "c", "x"])
  }

  @Test("a value that cannot fit is refused, and nothing goes for it")
  func tooLarge() {
    let dictionary = full(4)
    let large = String(repeating: "x", count: 1000)
    holds(dictionary.store("x", large) == "no memory")
    holds(dictionary.store("a", large) == "no memory" && dictionary.get("a") == "i0")
    holds(dictionary.keys() == ["a", "b", "c", "d"] && dictionary.shared.evictions == 0)
  }

  @Test("who may not let others go is refused where there is no room")
  func safe() {
    let dictionary = full(4)
    holds(dictionary.store("x", .integer(0), mayEvict: false) == "no memory")
    holds(dictionary.store("a", .integer(7), mayEvict: false) == "done")
    dictionary.store("b", .integer(0), ttl: 1)
    dictionary.pass(milliseconds: 1)
    holds(dictionary.store("x", .integer(0), mayEvict: false) == "done" && dictionary.keys() == ["a", "c", "d", "x"])
  }

  @Test("a growing value lets all others go but itself, whatever was used last")
  func growing() {
    let dictionary = full(4)
    for name in ["b", "c", "d"] { _ = dictionary.get(name) }
    let large = String(repeating: "x", count: 3 * SharedEntry.overheadBytes)
    holds(dictionary.store("a", large) == "forcible" && dictionary.get("a") == "b" + large)
    holds(dictionary.shared.usedBytes <= dictionary.shared.capacityBytes)
  }

  @Test("a growing value whose time is over meanwhile is stored all the same")
  func growingAndExpiring() {
    let clock = TestDictionary.Clock()
    // Each look at the clock is a millisecond later than the one before.
    let shared = SharedDictionary(name: [], capacityBytes: 4 * (SharedEntry.overheadBytes + 10)) {
      clock.now.wrappingAdd(1_000_000, ordering: .relaxed).newValue
    }
    let keys = (0..<4).map { [UInt8(97 + $0)] }
    for _ in 0..<200 {
      for key in keys {
        key.withUnsafeBytes { key in
          _ = shared.store(key, .integer(0), mode: .set, lifetime: .nanoseconds(4_000_000))
          [UInt8](repeating: 0, count: 100).withUnsafeBytes {
            _ = shared.store(key, .bytes($0), mode: .set, lifetime: .nanoseconds(4_000_000))
          }
        }
      }
      holds(shared.usedBytes <= shared.capacityBytes)
    }
  }

  @Test("after the cap was lowered, changes bring the dictionary under it")
  func loweredCap() {
    let dictionary = TestDictionary()
    for number in 0..<1000 { dictionary.store("\(number)", .integer(0)) }
    dictionary.shared.setCapacity(20_000)
    var changes = 0
    while dictionary.shared.usedBytes > 20_000 {
      holds(dictionary.store("new\(changes)", .integer(0)) == "forcible")
      changes += 1
    }
    holds(changes > 5 && changes < 50)
  }

  @Test("random calls never hold more than the cap, and count what they hold", .seeded)
  func accounting() {
    var random = SeededGenerator()
    let dictionary = TestDictionary(capacityBytes: 20_000)
    for _ in 0..<30_000 {
      let key = "\(Int.random(in: 0..<300, using: &random))"
      let text = String(repeating: "x", count: Int.random(in: 0..<400, using: &random))
      switch Int.random(in: 0..<8, using: &random) {
      case 0, 1: dictionary.store(key, text, ttl: Double(Int.random(in: 0..<3, using: &random)))
      case 2: dictionary.store(key, .integer(1))
      case 3: _ = dictionary.get(key)
      case 4: _ = dictionary.with(key) { dictionary.shared.delete($0) }
      case 5:
        _ = dictionary.with(key) { key in dictionary.with(text) { dictionary.shared.push(key, .bytes($0), at: .back) } }
      case 6: _ = dictionary.with(key) { dictionary.shared.pop($0, .front, { _ in }) }
      default: dictionary.pass(milliseconds: 0.5)
      }
      holds(dictionary.shared.usedBytes <= 20_000)
    }
    var held = 0
    dictionary.shared.table.each { held += $0.bytes }
    holds(held == dictionary.shared.usedBytes && held > 5000)
    dictionary.shared.flush()
    holds(dictionary.shared.usedBytes == 0 && dictionary.shared.count() == 0)
  }

  @Test("a flush of many entries leaves none, what is stored next stays, and other threads read and write meanwhile")
  func largeFlush() throws {
    let shared = SharedDictionary(name: [], capacityBytes: 64 << 20)
    let count = 3 * SharedDictionary.flushedAtOnceMax
    @Sendable func name(_ number: Int) -> [UInt8] { Array("key \(number)".utf8) }
    @Sendable func store(_ number: Int, _ text: String) {
      name(number).withUnsafeBytes { key in
        Array(text.utf8).withUnsafeBytes {
          _ = shared.store(key, .bytes($0), mode: .set, lifetime: .nanoseconds(0), flags: 0)
        }
      }
    }
    for round in 0..<5 {
      for number in 0..<count { store(number, "value \(number)") }
      name(0).withUnsafeBytes { _ = shared.push($0, .integer(1), at: .back) }
      try inParallel(3) { thread in
        if thread == 0 { return shared.flush() }
        for number in stride(from: thread, to: count, by: 3) {
          let found = name(number).withUnsafeBytes {
            shared.read($0) { value, _ in
              guard case .bytes(let bytes) = value else { return false }
              return Array(bytes) == Array("value \(number)".utf8)
            }
          }
          if case .found(let isWhole) = found { holds(isWhole) }
          if thread == 2 { store(count + number, "late") }
        }
      }
      holds(shared.table.count <= count / 3 + 1, "\(round)")
      shared.flush()
      holds(shared.count() == 0 && shared.usedBytes == 0 && shared.freeBytes == 64 << 20)
    }
  }

  @Test("much memory that has become free is told, and not what goes while other things come")
  func freed() {
    let told = Atomic<Int>(0)
    let shared = SharedDictionary(name: [], capacityBytes: 64 << 20, whenFreed: { told.add(1, ordering: .relaxed) })
    func store(_ number: Int) {
      let value = [UInt8](repeating: 1, count: 1 << 20)
      [UInt8(number)].withUnsafeBytes { key in
        value.withUnsafeBytes {
          _ = shared.store(key, .bytes($0), mode: .set, lifetime: .nanoseconds(0), flags: 0)
        }
      }
    }
    // At the cap old ones go for new ones.
    for round in 0..<4 { for number in 0..<100 { store((number + round) % 200) } }
    holds(shared.evictions > 0 && told.load(ordering: .relaxed) == 0)
    for number in 0..<200 { [UInt8(number)].withUnsafeBytes { _ = shared.delete($0) } }
    // At a half and at a quarter; what is less than 16 MB is not told.
    holds(shared.usedBytes == 0 && (1...2).contains(told.load(ordering: .relaxed)))
    let before = told.load(ordering: .relaxed)
    for number in 0..<40 { store(number) }
    shared.flush()
    holds(told.load(ordering: .relaxed) == before + 1)
  }

  @Test("a walk through the keys has each that is there once, and no more than asked for")
  func keys() {
    let dictionary = TestDictionary()
    for number in 0..<500 { dictionary.store("k\(number)", .integer(1)) }
    dictionary.store("gone", .integer(1), ttl: 1)
    dictionary.pass(milliseconds: 2)
    for limit in [0, 1, 7, 499, 500, 501, 1000] {
      var seen: [String] = []
      dictionary.shared.keys(limit: limit) { seen.append(String(decoding: $0, as: UTF8.self)) }
      holds(seen.count == (limit == 0 ? 500 : min(limit, 500)) && Set(seen).count == seen.count, "\(limit)")
      holds(!seen.contains("gone"))
    }
  }

  // MARK: Lists

  @Test("a key holds a list from the first push to the last pop")
  func lists() {
    let dictionary = TestDictionary()
    func push(_ number: Int64, _ end: SharedList.End) -> Int? {
      guard case .count(let count) = dictionary.with("l", { dictionary.shared.push($0, .integer(number), at: end) })
      else { return nil }
      return count
    }
    func pop(_ end: SharedList.End) -> String? {
      guard case .found(let text) = dictionary.with("l", { dictionary.shared.pop($0, end, SharedListTests.text) })
      else { return nil }
      return text
    }
    func range(_ first: Int64, _ last: Int64) -> [String] {
      var seen: [String] = []
      _ = dictionary.with("l") { key in
        dictionary.shared.eachElement(key, from: first, to: last) { seen.append(SharedListTests.text($0)) }
      }
      return seen
    }
    holds(push(2, .back) == 1 && push(1, .front) == 2 && push(3, .back) == 3)
    holds(dictionary.get("l") == "list" && dictionary.increment("l", .integer(1)) == "not a number")
    holds(
      dictionary.cas("l", .integer(1), .integer(2)) == "changed" && dictionary.cas("l", nil, .integer(2)) == "changed")
    holds(range(1, -1) == ["i1", "i2", "i3"] && range(2, 2) == ["i2"] && range(-2, 99) == ["i2", "i3"])
    holds(range(0, 1) == ["i1"] && range(-99, 0).isEmpty && range(4, 9).isEmpty && range(.min, .max).count == 3)
    holds(range(.max, .min).isEmpty && range(1, .min).isEmpty)
    holds(pop(.back) == "i3" && pop(.front) == "i1" && pop(.front) == "i2" && pop(.front) == nil)
    holds(dictionary.get("l") == nil && dictionary.shared.usedBytes == 0)
    dictionary.store("l", "no list")
    holds(push(1, .back) == nil && dictionary.get("l") == "bno list")
  }

  @Test("a list grows under the cap at the cost of others, and is refused beyond it")
  func listMemory() {
    let dictionary = TestDictionary(capacityBytes: 4096)
    for number in 0..<30 { dictionary.store("\(number)", .integer(0)) }
    var pushed = 0
    while case .count = dictionary.with("l", { dictionary.shared.push($0, .integer(1), at: .back) }) { pushed += 1 }
    holds(pushed > 100 && dictionary.keys().count < 20 && dictionary.get("l") == "list")
    holds(dictionary.shared.usedBytes <= 4096)
  }
}
