// Real threads for tests that need many blocking clients at once.
//
// Swift Testing runs tests on as many threads as there are cores; a test that blocks 200 clients brings its own.
// Must never know: what runs on them.

import Glibc

/// A condition guarded by its mutex, on the monotonic clock, and visible to the thread sanitizer.
final class Monitor: @unchecked Sendable {
  private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
  private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)

  init() {
    pthread_mutex_init(mutex, nil)
    var attributes = pthread_condattr_t()
    pthread_condattr_init(&attributes)
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
    pthread_cond_init(condition, &attributes)
    pthread_condattr_destroy(&attributes)
  }

  deinit {
    pthread_cond_destroy(condition)
    pthread_mutex_destroy(mutex)
    condition.deallocate()
    mutex.deallocate()
  }

  /// Runs `body` alone.
  func locked<Result>(_ body: () throws -> Result) rethrows -> Result {
    pthread_mutex_lock(mutex)
    defer { pthread_mutex_unlock(mutex) }
    return try body()
  }

  /// Runs `body` alone and wakes all that wait.
  func change(_ body: () -> Void) {
    locked(body)
    pthread_cond_broadcast(condition)
  }

  /// Waits until `condition`, looked at alone and after each change, is true; false when the deadline passed first.
  func wait(until deadline: Deadline, _ isTrue: () -> Bool) -> Bool {
    locked {
      var time = deadline.time
      while !isTrue() {
        if pthread_cond_timedwait(condition, mutex, &time) == ETIMEDOUT { return isTrue() }
      }
      return true
    }
  }
}

/// A thread that has been started and ends by itself; `join` waits for that.
package final class TestThread: @unchecked Sendable {
  private let ended = Monitor()
  private var isDone = false
  private var failure: (any Error)?

  /// Starts `body` on a thread of its own.
  package init(_ body: @escaping @Sendable () throws -> Void) {
    startDetachedThread { [self] in
      var thrown: (any Error)?
      do { try body() } catch { thrown = error }
      ended.change {
        failure = thrown
        isDone = true
      }
    }
  }

  /// Waits for the thread's end and throws what its body threw, or a failure when it did not end in time.
  package func join(timeout: Double = Patience.seconds) throws {
    guard ended.wait(until: Deadline(seconds: timeout), { isDone }) else {
      throw TestFailure("a thread of the test did not end within \(timeout) s")
    }
    if let failure { throw failure }
  }
}

/// Runs `body` with 0 ..< count, each on a thread of its own, waits for all and throws the first error in that order.
package func inParallel(
  _ count: Int, timeout: Double = Patience.seconds, _ body: @escaping @Sendable (Int) throws -> Void
) throws {
  let threads = (0..<count).map { index in TestThread { try body(index) } }
  for thread in threads { try thread.join(timeout: timeout) }
}

private final class ThreadBody {
  let run: @Sendable () -> Void
  init(_ run: @escaping @Sendable () -> Void) { self.run = run }
}

/// Runs `body` on a new detached thread with a small stack, so that hundreds of them are cheap.
func startDetachedThread(_ body: @escaping @Sendable () -> Void) {
  var attributes = pthread_attr_t()
  pthread_attr_init(&attributes)
  pthread_attr_setdetachstate(&attributes, Int32(PTHREAD_CREATE_DETACHED))
  pthread_attr_setstacksize(&attributes, 1 << 20)
  defer { pthread_attr_destroy(&attributes) }
  var thread = pthread_t()
  let context = Unmanaged.passRetained(ThreadBody(body)).toOpaque()
  let failure = pthread_create(
    &thread, &attributes,
    { context in
      Unmanaged<ThreadBody>.fromOpaque(context!).takeRetainedValue().run()
      return nil
    }, context)
  precondition(failure == 0, "pthread_create: \(failure)")
}
