// One call of moonport.offload on its way from a worker to a background thread and back. Immutable: where it stands is the pool's to know.

import LuaRuntime

/// A call to be made on a background thread.
final class OffloadJob: Sendable {
  /// What the module is required from: the caller's.
  let snapshot: Snapshot
  let module: [UInt8]
  /// What the function gets.
  let arguments: PlainData
  /// The call that waits for the answer, and the worker it is on.
  let caller: WaitTicket
  let mailbox: Mailbox<WorkerMessage>

  init(
    snapshot: Snapshot, module: [UInt8], arguments: PlainData, caller: WaitTicket, mailbox: Mailbox<WorkerMessage>
  ) {
    self.snapshot = snapshot
    self.module = module
    self.arguments = arguments
    self.caller = caller
    self.mailbox = mailbox
  }

  /// What it counts for while it waits, in bytes.
  var waitingBytes: Int { module.count + arguments.bytes.count }

  /// Tells the caller how it went; harmless when nobody waits any more.
  func answer(_ answer: WaitAnswer) { mailbox.post(.answer(caller, answer)) }
}
