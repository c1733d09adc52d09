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

  @Test("the next beat is a whole number of intervals after the last, however late that came or long it took")
  func noDrift() throws {
    let host = try AllocationWorker(
      """
      require "moonport".every(0.01, function() end)
      return {}
      """)
    let worker = host.worker
    let token = try #require(worker.timers.tokens { _ in true }.first)
    let interval: UInt64 = 10_000_000
    var due = worker.timers[token].dueAt
    for late in [0, 1, 9_999_999, 10_000_000, 10_000_001, 25_000_000, 10_000_000_000] as [UInt64] {
      worker.now = due + late
      _ = worker.deadlines.cancel(worker.timers[token].deadline)
      worker.timerDue(token)
      let next = worker.timers[token].dueAt
      holds(next > due + late && next <= due + late + interval && (next - due) % interval == 0, "\(late) late")
      due = next
    }
    worker.cancelTimer(token)
    holds(worker.timers.count == 0 && worker.deadlines.count == 0)
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
    guard case .connect(key) = DeadlinePurpose(payload: DeadlinePurpose.connect(key).payload) else {
      Issue.record("no connect's")
      return
    }
    guard case .memory = DeadlinePurpose(payload: DeadlinePurpose.memory.payload) else {
      Issue.record("not the memory's")
      return
    }
  }
}
