// A shared dictionary as tests use it.

import Synchronization

@testable import ScriptServer

/// A dictionary with a clock of its own, and calls with text.
final class TestDictionary: Sendable {
  let clock = Clock()
  let shared: SharedDictionary

  final class Clock: Sendable {
    let now = Atomic<UInt64>(1_000_000_000)
  }

  init(capacityBytes: Int = 1 << 20) {
    let clock = clock
    shared = SharedDictionary(name: [], capacityBytes: capacityBytes) { clock.now.load(ordering: .relaxed) }
  }

  func pass(milliseconds: Double) { clock.now.wrappingAdd(UInt64(milliseconds * 1e6), ordering: .relaxed) }

  static func milliseconds(_ time: Double) -> Lifetime { .nanoseconds(UInt64(time * 1e6)) }

  func with<Result>(_ key: String, _ body: (UnsafeRawBufferPointer) -> Result) -> Result {
    Array(key.utf8).withUnsafeBytes(body)
  }

  func get(_ key: String) -> String? {
    switch with(key, { shared.read($0) { value, _ in SharedListTests.text(value) } }) {
    case .found(let text): text
    case .missing: nil
    case .list: "list"
    }
  }

  @discardableResult
  func store(
    _ key: String, _ value: SharedValue, _ mode: StoreMode = .set, ttl: Double = 0, mayEvict: Bool = true
  ) -> String {
    Self.text(
      with(key) { shared.store($0, value, mode: mode, lifetime: Self.milliseconds(ttl), mayEvict: mayEvict) })
  }

  @discardableResult
  func store(_ key: String, _ text: String, _ mode: StoreMode = .set, ttl: Double = 0) -> String {
    with(text) { store(key, .bytes($0), mode, ttl: ttl) }
  }

  func cas(_ key: String, _ old: SharedValue?, _ new: SharedValue?, _ lifetime: Lifetime = .unchanged) -> String {
    Self.text(with(key) { shared.compareAndSet($0, old: old, new: new, lifetime: lifetime) })
  }

  func increment(_ key: String, _ amount: SharedValue, _ initial: SharedValue? = nil, ttl: Double = 0) -> String {
    switch with(key, { shared.increment($0, by: amount, initial: initial, lifetime: Self.milliseconds(ttl)) }) {
    case .integer(let sum, _): "i\(sum)"
    case .number(let sum, _): "n\(sum)"
    case .notFound: "not found"
    case .notANumber: "not a number"
    case .overflow: "overflow"
    case .noMemory: "no memory"
    }
  }

  func ttl(_ key: String) -> Double? { with(key) { shared.timeToLive($0) }.map { Double($0) / 1e6 } }

  func keys() -> Set<String> {
    var keys = Set<String>()
    shared.keys(limit: 0) { keys.insert(String(decoding: $0, as: UTF8.self)) }
    return keys
  }

  private static func text(_ outcome: ChangeOutcome) -> String {
    switch outcome {
    case .done(let forcible): forcible ? "forcible" : "done"
    case .exists: "exists"
    case .notFound: "not found"
    case .noMemory: "no memory"
    case .changed: "changed"
    }
  }
}
