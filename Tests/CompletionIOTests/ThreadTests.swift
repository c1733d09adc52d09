import CompletionIO
import Glibc
import Testing

@Suite("Threads and locks")
struct ThreadTests {
  @Test("a thread runs under its name and join waits for its end")
  func named() {
    nonisolated(unsafe) var name = ""
    Thread.start(name: "a name longer than fifteen bytes", stackBytes: 1 << 20) {
      var buffer = [UInt8](repeating: 0, count: 32)
      let file = open("/proc/thread-self/comm", O_RDONLY)
      let count = read(file, &buffer, buffer.count)
      name = String(decoding: buffer.prefix(count), as: UTF8.self)
      close(file)
    }.join()
    #expect(name == "a name longer t\n")
  }

  @Test("a lock lets one thread in at a time and passes results and errors through")
  func lock() {
    let lock = ThreadLock()
    nonisolated(unsafe) var count = 0
    let threads = (0..<4).map { _ in
      Thread.start(name: "counter") { for _ in 0..<10_000 { lock.withLock { count += 1 } } }
    }
    for thread in threads { thread.join() }
    #expect(lock.withLock { count } == 40_000)
    struct Refused: Error {}
    #expect(throws: Refused.self) { try lock.withLock { throw Refused() } }
    #expect(lock.withLock { true })
  }

  @Test("a lock counts how often a thread had to wait for another one, and nothing else")
  func contentions() {
    let lock = ThreadLock()
    for _ in 0..<1000 { lock.withLock {} }
    #expect(lock.contentions == 0)
    nonisolated(unsafe) var isOver = false
    let other = Thread.start(name: "holder") {
      // Others are let run while the lock is held, so that some find it taken.
      while !lock.withLock({ sched_yield() != 0 || isOver }) {}
    }
    #expect(eventually { lock.contentions > 0 })
    lock.withLock { isOver = true }
    other.join()
  }

  @Test("a condition wakes the threads that wait, and a wait with an end does not outlast it")
  func condition() {
    let condition = ThreadCondition()
    nonisolated(unsafe) var isOpen = false
    nonisolated(unsafe) var passed = 0
    let threads = (0..<4).map { _ in
      Thread.start(name: "waiter") {
        condition.withLock {
          while !isOpen { condition.wait() }
          passed += 1
        }
      }
    }
    condition.withLock {
      isOpen = true
      condition.broadcast()
    }
    for thread in threads { thread.join() }
    #expect(condition.withLock { passed } == 4)
    let end = CompletionPort.clock() + 2_000_000
    condition.lock()
    while condition.wait(untilNanoseconds: end) {}
    condition.unlock()
    #expect(CompletionPort.clock() >= end)
  }
}
