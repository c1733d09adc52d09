// One worker without a thread, on which a test runs turn by turn, with clients on socket pairs.

import CompletionIO
import Glibc
import Logging
import LuaRuntime

@testable import ScriptServer

/// A worker whose turns the test makes.
final class AllocationWorker {
  let worker: Worker
  private let context: ServerContext
  private let folder = TemporaryFolder()
  private var generation = 0

  /// Makes a worker on which `script` is live, with the files of `modules` beside it.
  init(_ script: String, modules: [String: String] = [:]) throws {
    for (name, text) in modules { folder.write(name, text) }
    folder.write("script.lua", script)
    context = ServerContext(
      Configuration(), log: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }, isScratch: false)
    worker = try Worker(index: 0, server: context)
    context.begin(workers: [worker], control: Mailbox<ControlMessage>(port: try CompletionPort()))
    if let problem = try reload() { throw LuaFailure(message: problem) }
  }

  deinit {
    worker.finish()
    context.end()
  }

  /// Makes the script live as a new generation; the error, or nil. Allocations fail from the `loading`th of the loading on, or
  /// from the `handingOver`th of the switch on.
  func reload(loading: Int? = nil, handingOver: Int? = nil, meetingNanoseconds: UInt64 = 2_000_000_000) throws
    -> String?
  {
    generation += 1
    let snapshot = try Snapshot.read(script: folder.path("script.lua"), number: generation)
    let plan = try ScratchRun.plan(snapshot, Configuration()).map {
      var settings = $0
      settings.declaredAddress = settings.address
      return settings
    }
    let transaction = ReloadTransaction(
      number: generation, snapshot: snapshot, plan: plan, listeners: plan.indices.map { UInt16($0) },
      counters: plan.map { _ in ListenerCounters() }, loadBudgetNanoseconds: 5_000_000_000,
      participants: 1, meetingNanoseconds: meetingNanoseconds)
    // The worker looks up its listeners' counters by bare reference.
    transactions.append(transaction)
    failing(loading) { worker.prepare(transaction) }
    if let problem = transaction.waitUntilLoaded() {
      worker.discard(transaction)
      return problem
    }
    failing(handingOver) { worker.commit(transaction) }
    return transaction.waitUntilDecided()
  }

  private var transactions: [ReloadTransaction] = []

  /// Runs `body` with allocations failing from the `count`th on.
  func failing<Result>(_ count: Int?, _ body: () throws -> Result) rethrows -> Result {
    worker.lua.failAllocations(after: count)
    defer { worker.lua.failAllocations(after: nil) }
    return try body()
  }

  /// One turn, which never waits.
  func turn() {
    worker.mailbox.post(.endOlder(than: 0))
    worker.turn()
  }

  /// Connects a client of a listener, in one turn.
  func connect(listener: UInt16 = 0) -> Client {
    var pair: [CInt] = [0, 0]
    precondition(socketpair(AF_UNIX, CInt(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue), 0, &pair) == 0)
    worker.counters.connections.add(1, ordering: .relaxed)
    worker.mailbox.post(.accepted(AcceptedClient(descriptor: pair[0], listener: listener, peerHash: 0)))
    worker.turn()
    return Client(descriptor: pair[1])
  }

  /// Turns until no connection is left: its client must be gone. A handler that still sleeps holds its connection so long.
  func turnUntilEmpty() -> Bool {
    let deadline = CompletionPort.clock() + 20_000_000_000
    while !worker.table.isEmpty, CompletionPort.clock() < deadline { turn() }
    return worker.table.isEmpty
  }

  /// What Lua holds once everything that can go is gone.
  var settledBytes: Int {
    for _ in 0..<3 { worker.lua.collectGarbage() }
    return worker.lua.memoryBytes
  }

  /// The other end of a client's connection.
  final class Client {
    let descriptor: CInt
    private var isOpen = true
    init(descriptor: CInt) { self.descriptor = descriptor }
    deinit { close() }

    func send(_ text: String) {
      let bytes = Array(text.utf8)
      _ = Glibc.send(descriptor, bytes, bytes.count, CInt(MSG_NOSIGNAL))
    }

    func received() -> String {
      var buffer = [UInt8](repeating: 0, count: 4096)
      let count = Glibc.read(descriptor, &buffer, buffer.count)
      return String(decoding: buffer.prefix(max(count, 0)), as: UTF8.self)
    }

    func close() {
      if isOpen { Glibc.close(descriptor) }
      isOpen = false
    }
  }
}
