import CompletionIO
import Testing

@Suite("Deadlines")
struct DeadlinesTests {
  @Test("random operations give what a sorted list gives")
  func model() {
    var random = SystemRandomNumberGenerator()
    for _ in 0..<40 {
      var deadlines = Deadlines()
      var model: [(time: UInt64, order: Int, payload: UInt64, key: DeadlineKey)] = []
      var gone: [DeadlineKey] = []
      var order = 0
      for step in 0..<1500 {
        order += 1
        switch Int.random(in: 0..<10, using: &random) {
        case 0..<5:
          let time = UInt64.random(in: 0..<200, using: &random)
          model.append((time, order, UInt64(step), deadlines.schedule(at: time, payload: UInt64(step))))
        case 5..<7 where !model.isEmpty:
          let one = model.remove(at: Int.random(in: 0..<model.count, using: &random))
          let payload = deadlines.cancel(one.key)
          #expect(payload == one.payload)
          gone.append(one.key)
        case 7 where !model.isEmpty:
          let index = Int.random(in: 0..<model.count, using: &random)
          model[index].time = UInt64.random(in: 0..<200, using: &random)
          model[index].order = order
          let moved = deadlines.reschedule(model[index].key, at: model[index].time)
          #expect(moved)
        case 8:
          if let key = gone.randomElement(using: &random) {
            let cancelled = deadlines.cancel(key)
            let moved = deadlines.reschedule(key, at: 1)
            #expect(cancelled == nil && !moved)
          }
        default:
          let now = UInt64.random(in: 0..<60, using: &random)
          let first = model.indices.min { (model[$0].time, model[$0].order) < (model[$1].time, model[$1].order) }
          let popped = deadlines.popExpired(at: now)
          if let first, model[first].time <= now {
            #expect(popped == model[first].payload)
            gone.append(model.remove(at: first).key)
          } else {
            #expect(popped == nil)
          }
        }
        let (count, next) = (deadlines.count, deadlines.nextDeadline)
        #expect(count == model.count)
        #expect(next == model.map(\.time).min())
      }
    }
  }

  @Test("deadlines at the same time come in the order in which they were scheduled")
  func ties() {
    var deadlines = Deadlines()
    for payload in UInt64(0)..<1000 { _ = deadlines.schedule(at: 5, payload: payload) }
    var popped: [UInt64] = []
    while let payload = deadlines.popExpired(at: 5) { popped.append(payload) }
    #expect(popped == Array(0..<1000))
  }

  @Test("a million deadlines set and cancelled leave nothing behind")
  func cancelled() {
    var deadlines = Deadlines()
    for round in UInt64(0)..<1_000_000 {
      let key = deadlines.schedule(at: round, payload: round)
      deadlines.cancel(key)
    }
    let (count, slots, next) = (deadlines.count, deadlines.slotsUsed, deadlines.nextDeadline)
    #expect(count == 0 && slots == 1 && next == nil)
  }

  @Test("the key that is never issued names nothing")
  func none() {
    var deadlines = Deadlines()
    let before = deadlines.cancel(.none)
    _ = deadlines.schedule(at: 1, payload: 1)
    let after = deadlines.cancel(.none)
    let count = deadlines.count
    #expect(before == nil && after == nil && count == 1)
  }
}
