// How long a test waits for something to become true, and the error it gets when it did not.
//
// Every wait of the test support goes through here, so that no test waits for a fixed time or for ever.
// Must never know: processes, sockets.

import Glibc

/// What a helper of this target throws: one sentence that says what was waited for and what was seen instead.
package struct TestFailure: Error, CustomStringConvertible {
  package let description: String

  package init(_ description: String) {
    self.description = description
  }

  /// A failed system call, with the reason as errno(3) names it.
  package static func call(_ name: String, errno code: Int32 = errno) -> TestFailure {
    TestFailure("\(name): \(String(cString: strerror(code)))")
  }
}

/// A point of the monotonic clock by which something must have happened.
package struct Deadline: Sendable {
  private let nanoseconds: Int64

  /// `seconds` from now, as they are: use `Patience.scaled` for what a sanitizer makes slower.
  package init(seconds: Double) {
    nanoseconds = Deadline.now() + Int64(seconds * 1e9)
  }

  package var hasPassed: Bool { Deadline.now() >= nanoseconds }

  /// What is left, for poll(2): rounded up so that a wait never ends early, 0 once it has passed.
  package var milliseconds: Int32 {
    let left = nanoseconds - Deadline.now()
    guard left > 0 else { return 0 }
    return Int32(min(left / 1_000_000 + 1, Int64(Int32.max)))
  }

  /// What pthread_cond_timedwait(3) takes, for a condition whose clock is CLOCK_MONOTONIC.
  package var time: timespec {
    timespec(tv_sec: Int(nanoseconds / 1_000_000_000), tv_nsec: Int(nanoseconds % 1_000_000_000))
  }

  /// Seconds of the monotonic clock.
  package static var uptime: Double { Double(now()) / 1e9 }

  private static func now() -> Int64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
  }
}

/// The bounds of waiting. They are there to end a test that hangs, never to measure: on a busy machine they must hold.
package enum Patience {
  /// How much longer everything may take in this build: a sanitizer slows the program about three times.
  package static let factor: Double = sanitizer == nil ? 1 : 3

  /// The sanitizer that this test program, and so the server beside it, was built with: its runtime is linked in.
  package static let sanitizer: String? = {
    let program = dlopen(nil, RTLD_NOW)
    if dlsym(program, "__tsan_init") != nil { return "thread" }
    if dlsym(program, "__asan_init") != nil { return "address" }
    return nil
  }()

  /// The usual bound, in seconds: generous, since it is reached by failing tests only.
  package static let seconds: Double = 20 * factor

  /// `seconds`, stretched for the build at hand.
  package static func scaled(_ seconds: Double) -> Double { seconds * factor }
}

/// Waits until `condition` is true, looking every 2 ms; throws after `timeout` seconds. Errors of the condition pass.
package func eventually(
  _ description: String, timeout: Double = Patience.seconds, _ condition: () throws -> Bool
) throws {
  let deadline = Deadline(seconds: timeout)
  while try !condition() {
    if deadline.hasPassed { throw TestFailure("within \(timeout) s it never came true that \(description)") }
    usleep(2_000)
  }
}
