// One more thread for the length of a test's step.

import Glibc

/// Runs `body` on a thread of its own while `step` runs here; returns when both are done.
func withTestThread(_ body: () -> Void, during step: () throws -> Void) rethrows {
  try withoutActuallyEscaping(body) { body in
    let box = Unmanaged.passRetained(ThreadBody(body))
    var thread = pthread_t()
    let code = pthread_create(
      &thread, nil,
      { argument in
        Unmanaged<ThreadBody>.fromOpaque(argument!).takeRetainedValue().body()
        return nil
      }, box.toOpaque())
    precondition(code == 0)
    defer { pthread_join(thread, nil) }
    try step()
  }
}

private final class ThreadBody {
  let body: () -> Void
  init(_ body: @escaping () -> Void) { self.body = body }
}
