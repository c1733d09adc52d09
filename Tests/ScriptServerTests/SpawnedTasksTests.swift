import LuaRuntime
import TestSupport
import Testing

@testable import ScriptServer

@Suite("The table of spawned tasks")
struct SpawnedTasksTests {
  @Test("a token names one task: once that has ended, no other is found by it", .seeded)
  func model() {
    var random = SeededGenerator()
    var table = SpawnTable()
    var live: [SpawnToken] = []
    var ended: [SpawnToken] = []
    for step in 0..<3000 {
      if Bool.random(using: &random) || live.isEmpty {
        let token = table.insert(LuaReference(index: Int32(step)), codeGeneration: step % 3, isHeld: false)!
        holds(token != .none && table[token].run.index == Int32(step) && !table[token].isRunning)
        holds(SpawnToken(rawValue: token.rawValue) == token && token.rawValue > 0)
        live.append(token)
      } else {
        let token = live.remove(at: Int.random(in: 0..<live.count, using: &random))
        table.remove(token)
        ended.append(token)
      }
      holds(table.count == live.count)
    }
    holds(live.allSatisfy { table.isCurrent($0) } && ended.allSatisfy { !table.isCurrent($0) })
    holds(table.unstarted { $0.codeGeneration == 1 }.count == live.filter { table[$0].codeGeneration == 1 }.count)
  }

  @Test("tasks come out in the order in which they went in, without those that have ended", .seeded)
  func order() {
    var random = SeededGenerator()
    var table = SpawnTable()
    var expected: [SpawnToken] = []
    for step in 0..<5000 {
      switch Int.random(in: 0..<5, using: &random) {
      case 0...1: expected.append(table.insert(LuaReference(index: Int32(step)), codeGeneration: 1, isHeld: false)!)
      case 2:
        guard !expected.isEmpty else { continue }
        table.remove(expected.remove(at: Int.random(in: 0..<expected.count, using: &random)))
      default:
        let token = table.takeQueued()
        holds(token == expected.first)
        if token != nil { expected.removeFirst() }
      }
    }
    while let token = table.takeQueued() {
      holds(token == expected.first)
      expected.removeFirst()
    }
    holds(expected.isEmpty && !table.hasQueued)
  }

  @Test("a held task comes out only once its generation is live")
  func held() {
    var table = SpawnTable()
    let early = table.insert(LuaReference(index: 1), codeGeneration: 2, isHeld: true)
    holds(!table.hasQueued && table.takeQueued() == nil)
    let other = table.insert(LuaReference(index: 2), codeGeneration: 1, isHeld: false)
    table.queueHeld()
    holds(table.takeQueued() == other)
    holds(table.takeQueued() == early)
    holds(table.takeQueued() == nil)
  }

  @Test("there is a bound, and room again once a task has ended")
  func bound() {
    var table = SpawnTable()
    var last: SpawnToken?
    for index in 0..<SpawnTable.spawnedTasksMax {
      last = table.insert(LuaReference(index: Int32(index)), codeGeneration: 1, isHeld: false)
    }
    holds(last != nil && table.insert(LuaReference(index: 0), codeGeneration: 1, isHeld: false) == nil)
    table.remove(last!)
    holds(table.insert(LuaReference(index: 0), codeGeneration: 1, isHeld: false) != nil)
  }

  @Test("a number that is no task's is current nowhere", arguments: [0, 1, -1, .max, .min, 0xff_ffff] as [Int64])
  func foreign(_ number: Int64) {
    var table = SpawnTable()
    _ = table.insert(LuaReference(index: 1), codeGeneration: 1, isHeld: false)
    holds(!table.isCurrent(SpawnToken(rawValue: number)))
  }
}
