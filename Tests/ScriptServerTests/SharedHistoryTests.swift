// What several threads see of one dictionary at once. Under the thread sanitizer, which these tests are made for, a reader that looked
// at freed memory or at half an entry would be a report.

import Glibc
import Synchronization
import TestSupport
import Testing

@testable import ScriptServer

@Suite("Shared dictionaries of several threads", .serialized)
struct SharedHistoryTests {
  /// Sizes for everyday; `MOONPORT_LONG=1` has ten times as much.
  private static let scale = getenv("MOONPORT_LONG") == nil ? 1 : 10

  // MARK: Linearizability

  /// One thread's random calls on some keys, with what they returned and a count that all threads have in common as time.
  private struct Caller {
    let shared: SharedDictionary
    let time: Reference
    var random: SeededGenerator
    var operations: [[RegisterOperation]]

    final class Reference: Sendable {
      let now = Atomic<Int>(0)
      func tick() -> Int { now.wrappingAdd(1, ordering: .sequentiallyConsistent).newValue }
    }

    mutating func run(_ count: Int) {
      for _ in 0..<count {
        let key = Int.random(in: operations.indices, using: &random)
        let began = time.tick()
        let step = [UInt8(key)].withUnsafeBytes { call($0) }
        operations[key].append(RegisterOperation(step, began: began, ended: time.tick()))
      }
    }

    /// A value: an integer, or a text long enough to be seen half written.
    private mutating func value() -> RegisterValue {
      let number = Int.random(in: 0..<4, using: &random)
      return Bool.random(using: &random)
        ? .integer(number) : .text(String(repeating: "\(number)", count: 3 + 100 * number))
    }

    private func with<Result>(_ value: RegisterValue, _ body: (SharedValue) -> Result) -> Result {
      switch value {
      case .integer(let number): body(.integer(Int64(number)))
      case .text(let text): Array(text.utf8).withUnsafeBytes { body(.bytes($0)) }
      }
    }

    private mutating func call(_ key: UnsafeRawBufferPointer) -> RegisterStep {
      switch Int.random(in: 0..<10, using: &random) {
      case 0..<3: return .get(get(key))
      case 3:
        let new = value()
        _ = store(key, new, .set)
        return .set(new)
      case 4:
        let new = value()
        return .add(new, done: store(key, new, .add))
      case 5:
        let new = value()
        return .replace(new, done: store(key, new, .replace))
      case 6: return .delete(existed: shared.delete(key))
      case 7:
        let old: RegisterValue? = Bool.random(using: &random) ? get(key) : value()
        return compareAndSet(key, old, Int.random(in: 0..<4, using: &random) == 0 ? nil : value())
      default: return increment(key, Bool.random(using: &random) ? 10 : nil)
      }
    }

    private func get(_ key: UnsafeRawBufferPointer) -> RegisterValue? {
      let found = shared.read(key) { value, _ in
        switch value {
        case .integer(let number): RegisterValue.integer(Int(number))
        case .bytes(let bytes): RegisterValue.text(String(decoding: bytes, as: UTF8.self))
        default: RegisterValue.text("neither")
        }
      }
      guard case .found(let value) = found else { return nil }
      return value
    }

    private func store(_ key: UnsafeRawBufferPointer, _ value: RegisterValue, _ mode: StoreMode) -> Bool {
      let outcome = with(value) { shared.store(key, $0, mode: mode, lifetime: .nanoseconds(0)) }
      guard case .done = outcome else { return false }
      return true
    }

    private func compareAndSet(
      _ key: UnsafeRawBufferPointer, _ old: RegisterValue?, _ new: RegisterValue?
    ) -> RegisterStep {
      func call(_ old: SharedValue?) -> ChangeOutcome {
        guard let new else { return shared.compareAndSet(key, old: old, new: nil, lifetime: .unchanged) }
        return with(new) { shared.compareAndSet(key, old: old, new: $0, lifetime: .unchanged) }
      }
      let outcome = if let old { with(old) { call($0) } } else { call(nil) }
      guard case .done = outcome else { return .compareAndSet(old, new, done: false) }
      return .compareAndSet(old, new, done: true)
    }

    private func increment(_ key: UnsafeRawBufferPointer, _ initial: Int?) -> RegisterStep {
      let outcome = shared.increment(
        key, by: .integer(1), initial: initial.map { .integer(Int64($0)) }, lifetime: .nanoseconds(0))
      guard case .integer(let sum, _) = outcome else { return .increment(1, initial: initial, sum: nil) }
      return .increment(1, initial: initial, sum: Int(sum))
    }
  }

  @Test("what three threads see of random calls can be explained by an order of them", .seeded)
  func linearizability() throws {
    var random = SeededGenerator()
    for _ in 0..<20 * Self.scale {
      let shared = SharedDictionary(name: [], capacityBytes: 1 << 20)
      let time = Caller.Reference()
      let keys = 3
      nonisolated(unsafe) var callers = (0..<3).map { _ in
        Caller(
          shared: shared, time: time, random: SeededGenerator(seed: random.next()),
          operations: Array(repeating: [], count: keys))
      }
      let results = UnsafeMutablePointer<Caller>.allocate(capacity: 3)
      for index in 0..<3 { (results + index).initialize(to: callers[index]) }
      callers = []
      nonisolated(unsafe) let shares = results
      try inParallel(3, timeout: Patience.scaled(120)) { shares[$0].run(500) }
      for key in 0..<keys { holds(isLinearizable((0..<3).map { results[$0].operations[key] })) }
      results.deinitialize(count: 3)
      results.deallocate()
    }
  }

  @Test("increments of several threads add up, and no sum is returned twice")
  func sum() throws {
    let shared = SharedDictionary(name: [], capacityBytes: 1 << 20)
    let count = 50_000 * Self.scale
    let total = Caller.Reference()
    try inParallel(4, timeout: Patience.scaled(120)) { _ in
      var own = 0
      for _ in 0..<count {
        let outcome = [UInt8(0)].withUnsafeBytes {
          shared.increment($0, by: .integer(1), initial: .integer(0), lifetime: .nanoseconds(0))
        }
        if case .integer(let sum, _) = outcome { own += Int(sum) }
      }
      total.now.wrappingAdd(own, ordering: .relaxed)
    }
    let all = 4 * count
    holds(total.now.load(ordering: .relaxed) == all * (all + 1) / 2)
  }

  // MARK: Freeing

  @Test("a reader sees whole values of its key, while others come, go, expire and grow", .seeded)
  func churn() throws {
    var random = SeededGenerator()
    let shared = SharedDictionary(name: [], capacityBytes: 300_000)
    let over = Caller.Reference()
    let seeds = (0..<4).map { _ in random.next() }
    let seen = Caller.Reference()
    try inParallel(4, timeout: Patience.scaled(120)) { thread in
      var random = SeededGenerator(seed: seeds[thread])
      if thread < 2 {
        for _ in 0..<60_000 * Self.scale { Self.change(shared, &random) }
        _ = over.tick()
        return
      }
      while over.now.load(ordering: .relaxed) == 0 {
        let number = UInt8.random(in: .min ... .max, using: &random)
        let key = [number, UInt8.random(in: 0..<8, using: &random)]
        let found = key.withUnsafeBytes { key in
          shared.read(key) { value, flags in
            guard case .bytes(let bytes) = value else { return false }
            return flags == UInt32(number) && !bytes.isEmpty && bytes.allSatisfy { $0 == number }
          }
        }
        if case .found(let isWhole) = found {
          holds(isWhole)
          _ = seen.tick()
        }
      }
    }
    holds(seen.now.load(ordering: .relaxed) > 100)
    holds(shared.usedBytes <= 300_000 && shared.evictions > 0)
  }

  /// A value whose bytes are the first of its key, or none.
  private static func change(_ shared: SharedDictionary, _ random: inout SeededGenerator) {
    let number = UInt8.random(in: .min ... .max, using: &random)
    let key = [number, UInt8.random(in: 0..<8, using: &random)]
    let choice = Int.random(in: 0..<1000, using: &random)
    key.withUnsafeBytes { key in
      switch choice {
      case 0: shared.flush()
      case 1..<100: _ = shared.delete(key)
      case 100..<200: _ = shared.expire(key, .nanoseconds(1000))
      case 200..<210: shared.keys(limit: 0) { _ in }
      case 210..<220: _ = shared.count()
      default:
        let bytes = [UInt8](repeating: number, count: Int.random(in: 1..<600, using: &random))
        bytes.withUnsafeBytes {
          _ = shared.store(
            key, .bytes($0), mode: .set, lifetime: .nanoseconds(choice < 300 ? 100_000 : 0), flags: UInt32(number))
        }
      }
    }
  }

  @Test("threads come and go, more than there are places, and all can read")
  func manyThreads() throws {
    let shared = SharedDictionary(name: [], capacityBytes: 1 << 20)
    [UInt8(1)].withUnsafeBytes { _ = shared.store($0, .integer(7), mode: .set, lifetime: .nanoseconds(0)) }
    for _ in 0..<20 {
      try inParallel(60) { _ in
        let found = [UInt8(1)].withUnsafeBytes { shared.read($0) { value, _ in value.equals(.number(7)) } }
        guard case .found(true) = found else { throw TestFailure("the key was not found") }
      }
    }
  }
}
