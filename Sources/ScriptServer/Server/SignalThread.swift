// Signals as messages: one thread waits for them, all others have them blocked, so that no handler ever interrupts anything.

import CompletionIO
import Glibc

/// Takes the signals that the server acts on. sigwait(3), signal(7).
enum SignalThread {
  /// End in order, end in order, reload.
  private static let handled = [SIGTERM, SIGINT, SIGHUP]

  /// What would end the server by default, and means nothing to it: somebody's mistake, or a limit on a file's size, which a
  /// write then reports (EFBIG). SIGPIPE is the log's business.
  private static let ignored = [SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGIO, SIGXFSZ]

  private static var set: sigset_t {
    var set = sigset_t()
    unsafe sigemptyset(&set)
    for signal in handled { unsafe sigaddset(&set, signal) }
    return set
  }

  /// Ignores what is ignored; before any thread starts.
  static func ignoreOthers() { for number in ignored { _ = signal(number, SIG_IGN) } }

  /// Blocks them in the calling thread and all that it starts later.
  static func blockHandled() {
    var set = set
    unsafe pthread_sigmask(SIG_BLOCK, &set, nil)
  }

  /// Has SIGTERM and SIGINT end the process, as by default, while the calling thread does `work`. No other thread lets them through.
  static func endingProcess<Value>(_ work: () -> Value) -> Value {
    var ending = sigset_t()
    unsafe sigemptyset(&ending)
    for signal in [SIGTERM, SIGINT] { unsafe sigaddset(&ending, signal) }
    unsafe pthread_sigmask(SIG_UNBLOCK, &ending, nil)
    defer { unsafe pthread_sigmask(SIG_BLOCK, &ending, nil) }
    return work()
  }

  /// Starts the thread that posts each of them to `mailbox`. It lives as long as the process.
  static func start(_ mailbox: Mailbox<ControlMessage>) {
    _ = Thread.start(name: "signals") {
      var set = set
      while true {
        var signal: Int32 = 0
        if unsafe sigwait(&set, &signal) == 0 { mailbox.post(.signal(signal)) }
      }
    }
  }
}
