// The trial run of a snapshot in a state of its own, before any worker hears of it: what it listens on, or why it cannot be
// loaded. Reaches no client, prints nothing, and ends by its budget, or is given up.

import CompletionIO
import Logging
import LuaRuntime
import Synchronization

/// Loads snapshots on trial.
enum ScratchRun {
  /// Trials that were given up and still run, each on a thread that nothing can end.
  private static let abandoned = Atomic<Int>(0)
  /// Each may take a core; with more, a script that is saved again and again would take all that the machine has.
  private static let abandonedMax = 4

  /// The listeners that the script asks for; throws the error's text with file, line and traceback. A trial that is stuck in a C
  /// function for longer than the stuck limit is given up: nothing else depends on it, so the process need not end. A server that
  /// is not up yet, `isStart`, can meanwhile be ended by signals, which nobody takes so early.
  static func plan(
    _ snapshot: Snapshot, _ configuration: Configuration, log: Logger = Logger(label: "moonport"), isStart: Bool = false
  ) throws(ServerFailure) -> [ListenerSettings] {
    guard abandoned.load(ordering: .relaxed) < abandonedMax else {
      throw .script(
        "\(abandonedMax) earlier trials are still stuck in C functions, each on a thread of its own; the server has to be"
          + " started anew before it can reload")
    }
    let context = ServerContext(configuration, log: log, isScratch: true)
    let outcome = ResultBox<[ListenerSettings]>()
    context.giveUp = { place in
      abandoned.add(1, ordering: .relaxed)
      let name = place.isEmpty ? snapshot.main.displayName : place
      let problem =
        "\(name): stuck in a C function that does not return, and cannot be ended; the trial was given up (--stuck-limit)"
      if !outcome.set(.failure(.script(problem))) { abandoned.subtract(1, ordering: .relaxed) }
    }
    let thread = Thread.startIfPossible(name: "trial") {
      let result = Result { () throws(ServerFailure) in try attempt(snapshot, context) }
      if !outcome.set(result) { abandoned.subtract(1, ordering: .relaxed) }
    }
    if thread == nil { throw .script("the system has no room for another thread: the script was not tried") }
    let result = isStart ? SignalThread.endingProcess { outcome.wait() } : outcome.wait()
    return try overridden(result.get(), configuration, snapshot)
  }

  /// The trial itself.
  private static func attempt(
    _ snapshot: Snapshot, _ context: ServerContext
  ) throws(ServerFailure) -> [ListenerSettings] {
    let worker: Worker
    do {
      worker = try Worker(index: 0, server: context)
    } catch {
      throw .script("\(error)")
    }
    defer { worker.lua.close() }
    if let problem = worker.load(Generation(number: snapshot.number, snapshot: snapshot)) { throw .script(problem) }
    return worker.candidate?.listeners ?? []
  }

  /// `--listen` replaces the address of the only listener, or makes one.
  private static func overridden(
    _ listeners: [ListenerSettings], _ configuration: Configuration, _ snapshot: Snapshot
  ) throws(ServerFailure) -> [ListenerSettings] {
    var listeners = listeners
    for index in listeners.indices { listeners[index].declaredAddress = listeners[index].address }
    if let address = configuration.listenOverride {
      guard listeners.count <= 1 else {
        throw .script(
          "--listen replaces the address of a script's only listener, but \(snapshot.main.displayName) has"
            + " \(listeners.count)")
      }
      if listeners.isEmpty {
        var made = ListenerSettings()
        made.isMade = true
        listeners = [made]
      }
      listeners[0].address = address
    }
    return listeners
  }
}

/// `moonport check`.
package enum ScriptCheck {
  /// Loads the script without serving it; each finding begins with `file:line:`. Empty when there is nothing to find.
  package static func check(_ configuration: Configuration) -> [String] {
    do {
      let snapshot = try Snapshot.read(script: configuration.scriptPath, number: 1)
      // What is found is the answer; a log of it besides would be no finding.
      let log = Logger(label: "moonport") { _ in SwiftLogNoOpLogHandler() }
      _ = try ScratchRun.plan(snapshot, configuration, log: log)
      return []
    } catch {
      return ["\(error)"]
    }
  }
}
