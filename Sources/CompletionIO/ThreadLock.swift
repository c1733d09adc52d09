// Locks between threads over pthread, which the thread sanitizer sees. They must never know what they protect.

import CLinux
import Glibc

/// A mutual exclusion lock. pthread_mutex_lock(3).
@safe
public final class ThreadLock: @unchecked Sendable {
  fileprivate let mutex: UnsafeMutablePointer<pthread_mutex_t>
  /// Changed by whoever holds the lock.
  private var contended = 0

  /// An unlocked lock. With `spins`, who finds it taken tries again for some hundred cycles before it sleeps: for a lock that is held
  /// for less than that (PTHREAD_MUTEX_ADAPTIVE_NP in pthread_mutexattr_settype(3)).
  public init(spins: Bool = false) {
    unsafe mutex = .allocate(capacity: 1)
    unsafe mutex.initialize(to: pthread_mutex_t())
    var attributes = pthread_mutexattr_t()
    unsafe pthread_mutexattr_init(&attributes)
    if spins { unsafe pthread_mutexattr_settype(&attributes, Int32(PTHREAD_MUTEX_ADAPTIVE_NP)) }
    let result = unsafe pthread_mutex_init(mutex, &attributes)
    unsafe pthread_mutexattr_destroy(&attributes)
    precondition(result == 0, "pthread_mutex_init: error \(result)")
  }

  deinit {
    unsafe pthread_mutex_destroy(mutex)
    unsafe mutex.deallocate()
  }

  /// Waits until no other thread holds the lock. Taking it twice in one thread never returns.
  public func lock() {
    if unsafe pthread_mutex_trylock(mutex) == 0 { return }
    let result = unsafe pthread_mutex_lock(mutex)
    precondition(result == 0, "pthread_mutex_lock: error \(result)")
    contended &+= 1
  }

  /// How often the lock was taken at the moment when a thread asked for it, so that it had to wait.
  public var contentions: Int { withLock { contended } }

  /// Lets the next thread have it. Only for the thread that holds it.
  public func unlock() {
    let result = unsafe pthread_mutex_unlock(mutex)
    precondition(result == 0, "pthread_mutex_unlock: error \(result)")
  }

  /// Runs `body` while holding the lock.
  public func withLock<Result: ~Copyable, Failure: Error>(
    _ body: () throws(Failure) -> Result
  ) throws(Failure) -> Result {
    lock()
    defer { unlock() }
    return try body()
  }
}

/// A lock together with the condition that threads wait for while they hold it. pthread_cond_wait(3).
///
/// As always with conditions: wait in a loop that looks at the state itself, since a wait may end without a reason.
@safe
public final class ThreadCondition: @unchecked Sendable {
  private let mutex = ThreadLock()
  private let condition: UnsafeMutablePointer<pthread_cond_t>

  /// An unlocked lock that nobody waits for. Its clock is CLOCK_MONOTONIC.
  public init() {
    unsafe condition = .allocate(capacity: 1)
    unsafe condition.initialize(to: pthread_cond_t())
    var attributes = pthread_condattr_t()
    unsafe pthread_condattr_init(&attributes)
    unsafe pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
    let result = unsafe pthread_cond_init(condition, &attributes)
    unsafe pthread_condattr_destroy(&attributes)
    precondition(result == 0, "pthread_cond_init: error \(result)")
  }

  deinit {
    unsafe pthread_cond_destroy(condition)
    unsafe condition.deallocate()
  }

  /// Waits until no other thread holds the lock.
  public func lock() { mutex.lock() }

  /// Lets the next thread have the lock.
  public func unlock() { mutex.unlock() }

  /// Runs `body` while holding the lock.
  public func withLock<Result: ~Copyable, Failure: Error>(
    _ body: () throws(Failure) -> Result
  ) throws(Failure) -> Result {
    try mutex.withLock(body)
  }

  /// Gives the lock up until a broadcast and takes it again. Only while holding it.
  public func wait() {
    let result = unsafe pthread_cond_wait(condition, mutex.mutex)
    precondition(result == 0, "pthread_cond_wait: error \(result)")
  }

  /// Like `wait()`, but not beyond a time of `CompletionPort.clock()`; false when that time was reached.
  public func wait(untilNanoseconds time: UInt64) -> Bool {
    var end = timespec(tv_sec: Int(time / 1_000_000_000), tv_nsec: Int(time % 1_000_000_000))
    let result = unsafe pthread_cond_timedwait(condition, mutex.mutex, &end)
    precondition(result == 0 || result == ETIMEDOUT, "pthread_cond_timedwait: error \(result)")
    return result == 0
  }

  /// Ends one thread's wait.
  public func signal() { unsafe pthread_cond_signal(condition) }

  /// Ends every thread's wait.
  public func broadcast() { unsafe pthread_cond_broadcast(condition) }
}
