import CompletionIO
import LuaRuntime
import TestSupport
import Testing

@testable import ScriptServer

@Suite("The table of suspended tasks")
struct TasksTests {
  private func owner(_ generation: Int = 1) -> TaskOwner {
    TaskOwner(kind: .message, connection: .none, codeGeneration: generation)
  }

  @Test("a token names one task: once that has ended, no other is found by it", .seeded)
  func model() {
    var random = SeededGenerator()
    var table = TaskTable()
    var live: [TaskToken] = []
    var ended: [TaskToken] = []
    for step in 0..<3000 {
      if Bool.random(using: &random) || live.isEmpty {
        let token = table.insert(owner(step))!
        holds(token != .none && table[token].owner.codeGeneration == step)
        live.append(token)
      } else {
        let token = live.remove(at: Int.random(in: 0..<live.count, using: &random))
        table.remove(token)
        ended.append(token)
      }
      holds(table.count == live.count)
    }
    holds(live.allSatisfy { table.isCurrent($0) } && ended.allSatisfy { !table.isCurrent($0) })
    holds(!table.isCurrent(.none) && !table.isCurrent(TaskToken(slot: 1 << 20, generation: 1)))
  }

  @Test("only tasks that are suspended count among those of older code")
  func older() throws {
    let lua = LuaState(context: nil, library: noFunctions)!
    defer { lua.close() }
    let pool = CoroutinePool(lua)
    var table = TaskTable()
    for generation in 1...5 {
      let token = table.insert(owner(generation))!
      if generation != 2 { table[token].thread = pool.take() }
    }
    holds(table.count(olderThan: 4) == 2)
    holds(table.tokens { $0.owner.codeGeneration < 4 }.count == 2)
    holds(table.count(olderThan: 1) == 0)
  }
}
