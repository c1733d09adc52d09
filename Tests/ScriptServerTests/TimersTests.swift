import CompletionIO
import LuaRuntime
import TestSupport
import Testing

@testable import ScriptServer

@Suite("The table of timers")
struct TimersTests {
  @Test("a token names one timer: once that has ended, no other is found by it", .seeded)
  func model() {
    var random = SeededGenerator()
    var table = TimerTable()
    var live: [TimerToken] = []
    var ended: [TimerToken] = []
    for step in 0..<3000 {
      if Bool.random(using: &random) || live.isEmpty {
        let token = table.insert(
          LuaReference(index: Int32(step)), intervalNanoseconds: 0, codeGeneration: step % 3, dueAt: UInt64(step))!
        holds(token != .none && table[token].function.index == Int32(step) && table[token].dueAt == UInt64(step))
        holds(TimerToken(rawValue: token.rawValue) == token && token.rawValue > 0)
        live.append(token)
      } else {
        let token = live.remove(at: Int.random(in: 0..<live.count, using: &random))
        table.remove(token)
        ended.append(token)
      }
      holds(table.count == live.count)
    }
    holds(live.allSatisfy { table.isCurrent($0) } && ended.allSatisfy { !table.isCurrent($0) })
    let ofOne = table.tokens { $0.codeGeneration == 1 }
    holds(ofOne.count == live.filter { table[$0].codeGeneration == 1 }.count)
  }

  @Test("a number that is no timer's is current nowhere", arguments: [0, 1, -1, .max, .min, 0xff_ffff] as [Int64])
  func foreign(_ number: Int64) {
    var table = TimerTable()
    _ = table.insert(LuaReference(index: 1), intervalNanoseconds: 0, codeGeneration: 1, dueAt: 1)
    let isCurrent = table.isCurrent(TimerToken(rawValue: number))
    holds(!isCurrent)
  }

  @Test(
    "what a deadline is for survives its 64 bits", arguments: [1, 77, .max] as [UInt32], [0, 5, 0x3f_ffff] as [UInt32])
  func purposes(_ generation: UInt32, _ slot: UInt32) {
    let key = HandleKey(slot: slot, generation: generation)
    guard case .connection(key) = DeadlinePurpose(payload: DeadlinePurpose.connection(key).payload) else {
      Issue.record("no connection's")
      return
    }
    let task = TaskToken(slot: slot, generation: generation)
    guard case .task(task) = DeadlinePurpose(payload: DeadlinePurpose.task(task).payload) else {
      Issue.record("no task's")
      return
    }
    let timer = TimerToken(slot: slot, generation: generation)
    guard case .timer(timer) = DeadlinePurpose(payload: DeadlinePurpose.timer(timer).payload) else {
      Issue.record("no timer's")
      return
    }
  }
}
