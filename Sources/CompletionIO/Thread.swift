// Starting and joining named threads. It must never know what they run.

import CLinux
import Glibc
import Synchronization

/// Starts threads.
public enum Thread {
  /// Starts a thread that runs `body` and ends. pthread_create(3).
  ///
  /// - Parameters:
  ///   - name: what `top -H` and debuggers show, cut to 15 bytes.
  ///   - stackBytes: the stack's size; the default is the process's own limit (commonly 8 MiB, touched as needed).
  ///   - body: what the thread does.
  public static func start(name: String, stackBytes: Int? = nil, _ body: sending @escaping () -> Void) -> ThreadHandle {
    guard let handle = startIfPossible(name: name, stackBytes: stackBytes, body) else {
      preconditionFailure("pthread_create failed: there is no memory, or no room for another thread")
    }
    return handle
  }

  /// As `start`; nil when the system has no memory or no room for another thread, which a limit may cause at any time.
  public static func startIfPossible(
    name: String, stackBytes: Int? = nil, _ body: sending @escaping () -> Void
  ) -> ThreadHandle? {
    var attributes = pthread_attr_t()
    unsafe pthread_attr_init(&attributes)
    if let stackBytes { unsafe pthread_attr_setstacksize(&attributes, stackBytes) }
    let work = unsafe Unmanaged.passRetained(ThreadWork(name: name, body: body))
    var thread = pthread_t()
    let result = unsafe pthread_create(
      &thread, &attributes,
      { context in
        let work = unsafe Unmanaged<ThreadWork>.fromOpaque(context!).takeRetainedValue()
        unsafe clinux_name_thread(work.name)
        work.body()
        return nil
      }, unsafe work.toOpaque())
    unsafe pthread_attr_destroy(&attributes)
    guard result == 0 else {
      unsafe work.release()
      return nil
    }
    return ThreadHandle(thread)
  }
}

/// A started thread. One that is dropped without `join` runs on by itself.
public final class ThreadHandle: @unchecked Sendable {
  private let thread: pthread_t
  private let joined = Atomic<Bool>(false)

  fileprivate init(_ thread: pthread_t) { self.thread = thread }

  deinit {
    if !joined.load(ordering: .acquiring) { pthread_detach(thread) }
  }

  /// Waits until the thread has ended. Once only. pthread_join(3).
  public func join() {
    let before = joined.exchange(true, ordering: .acquiringAndReleasing)
    precondition(!before, "a thread was joined twice")
    let result = pthread_join(thread, nil)
    precondition(result == 0, "pthread_join: error \(result)")
  }
}

/// What a thread needs to begin.
private final class ThreadWork {
  let name: String
  let body: () -> Void

  init(name: String, body: @escaping () -> Void) {
    self.name = name
    self.body = body
  }
}
