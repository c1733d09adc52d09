import Glibc
import TestSupport
import Testing

@testable import ScriptServer

/// An entry of the key `name`; the caller frees it.
func makeEntry(_ name: String, _ number: Int64 = 0) -> EntryPointer {
  Array(name.utf8).withUnsafeBytes { key in
    EntryPointer.make(
      key: key, hash: SharedDictionary.hash(key), value: .integer(number), flags: 0, deadline: 0, usedAt: 0)!
  }
}

@Suite("Tables of entries")
struct EntryTableTests {
  private func find(_ table: borrowing EntryTable, _ name: String) -> EntryPointer? {
    var found: EntryPointer?
    Array(name.utf8).withUnsafeBytes { found = table.find(SharedDictionary.hash($0), $0) }
    return found
  }

  @Test("random changes leave what a Swift dictionary would have", .seeded)
  func model() {
    var random = SeededGenerator()
    let table = EntryTable()
    var model: [String: EntryPointer] = [:]
    for _ in 0..<200_000 {
      let name = "k\(Int.random(in: 0..<20_000, using: &random))"
      holds(find(table, name) == model[name])
      switch (model[name], Bool.random(using: &random)) {
      case (nil, _):
        let entry = makeEntry(name)
        if let array = table.insert(entry) { free(array) }
        model[name] = entry
      case (let old?, true):
        table.remove(old)
        old.free()
        model[name] = nil
      case (let old?, false):
        let entry = makeEntry(name)
        table.replace(old, by: entry)
        old.free()
        model[name] = entry
      }
      holds(table.count == model.count)
    }
    var seen = Set<EntryPointer>()
    table.each { seen.insert($0) }
    holds(seen == Set(model.values))
    let emptied = table.empty()
    holds(emptied.count == model.count && table.count == 0)
    holds(model.keys.allSatisfy { find(table, $0) == nil } && table.empty().count == 0)
    // What readers may still look at is as it was.
    holds(
      model.allSatisfy { name, entry in Array(name.utf8).withUnsafeBytes { entry.has(SharedDictionary.hash($0), $0) } })
    emptied.free()
  }

  @Test("adding and removing one key over and over takes no more room")
  func churn() {
    let table = EntryTable()
    var replaced = 0
    for _ in 0..<10_000 {
      let entry = makeEntry("key")
      if let array = table.insert(entry) {
        free(array)
        replaced += 1
      }
      table.remove(entry)
      entry.free()
    }
    holds(replaced < 10)
  }

  @Test("the parts together have each entry once")
  func parts() {
    let table = EntryTable()
    for number in 0..<1000 { if let array = table.insert(makeEntry("\(number)")) { free(array) } }
    var seen = Set<EntryPointer>()
    var count = 0
    for part in 0..<EntryTable.partCount {
      table.each(ofPart: part) {
        seen.insert($0)
        count += 1
      }
    }
    holds(count == 1000 && seen.count == 1000)
    table.empty().free()
  }
}

@Suite("Heaps of entries")
struct EntryHeapTests {
  @Test("random changes keep the smallest key first", .seeded)
  func model() {
    var random = SeededGenerator()
    var heap = EntryHeap<UseRole>()
    let entries = (0..<300).map { makeEntry("\($0)") }
    var model: [EntryPointer: UInt64] = [:]
    for _ in 0..<20_000 {
      let entry = entries.randomElement(using: &random)!
      if Int.random(in: 0..<3, using: &random) == 0 {
        heap.remove(entry)
        model[entry] = nil
      } else {
        let key = UInt64.random(in: 1...1000, using: &random)
        heap.set(entry, key: key)
        model[entry] = key
      }
      holds(heap.count == model.count)
      holds(heap.first?.key == model.values.min())
      if let first = heap.first { holds(model[first.entry] == first.key) }
    }
    let limit = UInt64.random(in: 1...1000, using: &random)
    holds(heap.count(upTo: limit) == model.values.count { $0 <= limit })
    var last: UInt64 = 0
    while let first = heap.first {
      holds(first.key >= last)
      last = first.key
      heap.remove(first.entry)
    }
    for entry in entries { entry.free() }
  }

  @Test("an entry takes the place of another")
  func replace() {
    var heap = EntryHeap<ExpiryRole>()
    let entries = (0..<3).map { makeEntry("\($0)") }
    heap.set(entries[0], key: 5)
    heap.set(entries[1], key: 7)
    heap.replace(entries[0], by: entries[2])
    holds(heap.first?.entry == entries[2] && heap.first?.key == 5 && heap.count == 2)
    heap.remove(entries[0])
    holds(heap.count == 2)
    for entry in entries { entry.free() }
  }
}
