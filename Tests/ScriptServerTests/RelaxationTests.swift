import Testing

@testable import ScriptServer

@Suite("When a worker gives memory back")
struct RelaxationTests {
  private static let soon: UInt64 = 500_000_000
  private static let millisecond: UInt64 = 1_000_000

  @Test("it waits twice as long each time the state is still full, up to a bound, and is soon again once it is not")
  func backsOff() {
    var relaxation = Relaxation()
    #expect(relaxation.pauseNanoseconds == Self.soon)
    for _ in 0..<7 {
      let before = relaxation.pauseNanoseconds
      relaxation.hasRun(isFull: true, nanoseconds: Self.millisecond)
      #expect(relaxation.pauseNanoseconds == 2 * before)
    }
    let longest = relaxation.pauseNanoseconds
    relaxation.hasRun(isFull: true, nanoseconds: Self.millisecond)
    #expect(relaxation.pauseNanoseconds == longest && longest == 64_000_000_000)
    relaxation.hasRun(isFull: false, nanoseconds: Self.millisecond)
    #expect(relaxation.pauseNanoseconds == Self.soon)
  }

  @Test("it takes at most a sixteenth of the worker's time, full or not")
  func share() {
    for isFull in [false, true] {
      var relaxation = Relaxation()
      relaxation.hasRun(isFull: isFull, nanoseconds: 1_000 * Self.millisecond)
      #expect(relaxation.pauseNanoseconds == 16_000 * Self.millisecond)
      relaxation.hasRun(isFull: isFull, nanoseconds: 1_000_000 * Self.millisecond)
      #expect(relaxation.pauseNanoseconds == 64_000 * Self.millisecond)
    }
  }

  @Test("one deadline is set until it has run")
  func once() throws {
    let host = try AllocationWorker("return {}")
    let before = host.worker.deadlines.count
    host.worker.willRelaxMemory()
    host.worker.willRelaxMemory()
    #expect(host.worker.relaxation.isDue && host.worker.deadlines.count == before + 1)
    host.worker.relaxMemory()
    #expect(!host.worker.relaxation.isDue)
    host.worker.willRelaxMemory()
    #expect(host.worker.deadlines.count == before + 2)
  }
}
