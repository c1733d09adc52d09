// Leaving: signals, draining until the clients are gone or the time is up, and stopping.

import CompletionIO
import Glibc
import Logging
import Synchronization

/// How far the end has come.
struct LeavingState {
  /// Nobody is accepted any more; the server ends when the clients have gone.
  var isDraining = false
  var drainUntil: UInt64 = 0
  /// The workers were told to end, and why.
  var isStopping = false
  var reason = ""
  var workersEnded = 0
  var isDone = false
  /// Admin clients that asked for the end and wait for it.
  var clients: [HandleKey] = []
  /// Clients that were still there when the drain's time was up.
  var clientsCut = 0
  /// Messages that workers had no time to handle.
  var messagesDropped = 0
  /// 0 when all could finish.
  var exitStatus: Int32 = 0

  var isLeaving: Bool { isDraining || isStopping }

  /// What whoever asked for the end is told.
  var report: String {
    var report = "the server has ended"
    if clientsCut > 0 { report += clientsCut == 1 ? "; 1 client was cut off" : "; \(clientsCut) clients were cut off" }
    if messagesDropped > 0 {
      report +=
        messagesDropped == 1
        ? "; 1 message was not delivered in time" : "; \(messagesDropped) messages were not delivered in time"
    }
    return report
  }
}

extension ControlThread {
  /// How often a drain looks whether the clients are gone.
  private static let drainTickNanoseconds: UInt64 = 50_000_000
  /// How long the workers may take to handle what was sent to them before they were told to end.
  private static let catchUpNanoseconds: UInt64 = 2_000_000_000
  /// How long the workers may take to end once they were told to: that, a second for their clients' last bytes, and handlers.
  private static let stopNanoseconds: UInt64 = 5_000_000_000

  func received(_ signal: Int32) {
    switch signal {
    case SIGHUP: reload(.files, client: nil)
    default:
      if leaving.isLeaving {
        log.info("a second signal: ending at once")
        stop(reason: "signal")
      } else {
        drain(seconds: configuration.drainSeconds)
      }
    }
  }

  /// Stops accepting and lets the clients finish for so long, then ends.
  func drain(seconds: Double) {
    if leaving.isStopping { return }
    log.info("draining", metadata: ["seconds": "\(seconds)"])
    leaving.drainUntil = CompletionPort.clock() &+ Worker.nanoseconds(seconds)
    // One that has begun gets a new deadline.
    if leaving.isDraining { return }
    leaving.isDraining = true
    closeListeners()
    drainTick()
  }

  func drainTick() {
    if leaving.isStopping { return }
    let clock = CompletionPort.clock()
    let clients = context.clientDescriptors.load(ordering: .relaxed)
    if clients == 0 { return stop(reason: "drain") }
    if clock >= leaving.drainUntil {
      log.warning("the time to drain is up: clients are cut off", metadata: ["clients": "\(clients)"])
      leaving.clientsCut = clients
      leaving.exitStatus = ExitStatus.cut
      return stop(reason: "drain")
    }
    let next = min(clock + Self.drainTickNanoseconds, leaving.drainUntil)
    _ = deadlines.schedule(at: next, payload: ControlDeadline.drainTick.rawValue)
  }

  /// Ends now: every connection is closed with "shutdown".
  func stop(reason: String) {
    if leaving.isStopping { return }
    leaving.isStopping = true
    closeListeners()
    leaving.reason = reason
    for worker in workers { worker.mailbox.post(.stop(reason: reason)) }
    let clock = CompletionPort.clock()
    _ = deadlines.schedule(at: clock + Self.catchUpNanoseconds, payload: ControlDeadline.hurriedEnd.rawValue)
    _ = deadlines.schedule(at: clock + Self.stopNanoseconds, payload: ControlDeadline.forcedEnd.rawValue)
  }

  /// Workers that have not come to their end yet because of what was sent to them before go on to it at once.
  func hurryEnd() {
    for worker in workers { worker.mailbox.postUrgent(.stop(reason: leaving.reason)) }
  }

  /// A worker that ends has let go of so many messages.
  func messagesDropped(_ count: Int) {
    leaving.messagesDropped += count
    leaving.exitStatus = ExitStatus.cut
  }

  /// The exit status when a worker was stuck for too long: EX_SOFTWARE of sysexits.h(3head), so that a supervisor can tell.
  static let stuckExitStatus: Int32 = 70

  /// A worker can neither go on nor be ended: the process ends, for its supervisor to start it again.
  func endStuck(_ details: Logger.Metadata) {
    log.critical("a worker was stuck past --stuck-limit; ending the process", metadata: details)
    admin?.close()
    exit(Self.stuckExitStatus)
  }

  /// A worker that does not end is in a handler that does not return: nothing is left but to end the process.
  func forceEnd() {
    log.critical("a worker did not end: a handler keeps it busy; ending the process")
    let report = "a worker did not end in time, so the process ended, with exit status \(ExitStatus.cut)"
    for client in leaving.clients { answer(client, AdminReply(status: 1, text: report)) }
    refuseReloads()
    admin?.close()
    exit(ExitStatus.cut)
  }
}

/// The exit statuses of a server beside 0.
enum ExitStatus {
  /// It could not start, or failed.
  static let failure: Int32 = 1
  /// It ended as it was told to, but clients or handlers had not finished in their time and were cut off.
  static let cut: Int32 = 3
}
