// The trial run of a snapshot in a state of its own, before any worker hears of it: what it listens on, or why it cannot be
// loaded. Reaches no client, prints nothing, and ends by its budget.

import CompletionIO
import Logging
import LuaRuntime

/// Loads snapshots on trial.
enum ScratchRun {
  /// The listeners that the script asks for; throws the error's text with file, line and traceback.
  static func plan(_ snapshot: Snapshot, _ configuration: Configuration) throws(ServerFailure) -> [ListenerSettings] {
    let context = ServerContext(configuration, log: Logger(label: "moonport"), isScratch: true)
    let worker: Worker
    do {
      worker = try Worker(index: 0, server: context)
    } catch {
      throw .script("\(error)")
    }
    defer { worker.lua.close() }
    if let problem = worker.load(Generation(number: snapshot.number, snapshot: snapshot)) { throw .script(problem) }
    return try overridden(worker.candidate?.listeners ?? [], configuration, snapshot)
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
      _ = try ScratchRun.plan(snapshot, configuration)
      return []
    } catch {
      return ["\(error)"]
    }
  }
}
