// --watch: a change to a file of the snapshot is a reload.

import CompletionIO
import Logging

/// The file watcher and its handle on the control thread's port.
struct WatchedSnapshot: ~Copyable {
  var watcher: FileWatcher
  let key: HandleKey
}

extension ControlThread {
  func startWatching(_ snapshot: Snapshot) {
    do {
      var watcher = try FileWatcher()
      let key = try port.associate(Descriptor(adopting: watcher.descriptor), as: .file)
      watcher.watch(snapshot.watchSet)
      if let problem = watcher.problem { log.warning("--watch: \(problem)") }
      self.watcher = WatchedSnapshot(watcher: watcher, key: key)
      _ = port.submit(.read, on: key)
    } catch {
      log.error("--watch does not work here: \(error)")
    }
  }

  func watchRead(_ completion: Completion) {
    guard completion.errorNumber == 0, completion.count > 0 else {
      return log.error("--watch has ended: inotify failed")
    }
    unsafe watcher?.watcher.handle(bytes: completion.bytes, now: now)
    if let key = watcher?.key { _ = port.submit(.read, on: key) }
  }

  /// A handler has required a module that was not among the files so far: it is watched too. After a failed reload the
  /// files of that one are watched, and the next one that succeeds brings the module's.
  func watchGrownSnapshot() {
    guard let snapshot = reloads.current, reloads.last?.succeeded != false else { return }
    watcher?.watcher.watch(snapshot.watchSet)
  }

  func pollWatcher() {
    guard watcher?.watcher.poll(now: now) == true else { return }
    log.info("a file of the script has changed")
    reload(.files, client: nil)
  }
}
