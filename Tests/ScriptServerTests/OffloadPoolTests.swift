// The pool of background threads where the system gives it fewer than it wants. What it does with those it has is tested from outside.

import CompletionIO
import Logging
import LuaRuntime
import Synchronization
import Testing

@testable import ScriptServer

@Suite("The pool of background threads")
struct OffloadPoolTests {
  /// Gives as many threads as it is told.
  private final class Threads: Sendable {
    let left = Atomic<Int>(0)

    func start(_ name: String, _ body: sending @escaping () -> Void) -> Bool {
      if left.load(ordering: .relaxed) == 0 { return false }
      left.subtract(1, ordering: .relaxed)
      return Thread.startIfPossible(name: name, body) != nil
    }
  }

  @Test("without a thread a call is refused, and one is enough for all that wait")
  func noThreads() throws {
    let folder = TemporaryFolder()
    folder.write("script.lua", "return {}")
    folder.write("nothing.lua", "return function() end")
    let snapshot = try Snapshot.read(script: folder.path("script.lua"), number: 1)
    let port = try CompletionPort()
    let mailbox = Mailbox<WorkerMessage>(port: port)
    func job() -> OffloadJob {
      OffloadJob(
        snapshot: snapshot, module: Array("nothing".utf8), arguments: PlainData(bytes: [], isList: true),
        caller: WaitTicket(token: .none, number: 0), mailbox: mailbox)
    }
    let threads = Threads()
    var configuration = Configuration()
    configuration.offloadThreads = 4
    let pool = OffloadPool(
      configuration, log: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }, dictionaries: SharedDirectory(),
      control: Mailbox<ControlMessage>(port: try CompletionPort()), startThread: { threads.start($0, $1) })
    #expect(!pool.submit(job()) && !pool.submit(job()))
    #expect(pool.currentStatus.threads == 0 && pool.currentStatus.refused == 2 && pool.currentStatus.waiting == 0)
    threads.left.store(1, ordering: .relaxed)
    for _ in 0..<10 { #expect(pool.submit(job())) }
    var answers: [WorkerMessage] = []
    while answers.count < 10 {
      _ = port.dequeue(timeoutNanoseconds: 10_000_000_000)
      mailbox.drain(into: &answers)
    }
    #expect(pool.currentStatus.threads == 1)
    pool.end()
  }
}
