// What one worker takes of its mailbox in a turn, and that what it has not got to stays within the mailbox's bounds.

import CompletionIO
import LuaRuntime
import Testing

@testable import ScriptServer

@Suite("A worker's inbox")
struct WorkerInboxTests {
  private static let script = """
    require("moonport").listen { address = "127.0.0.1:1" }
    return {}
    """

  /// A message for a connection that never was.
  private var message: WorkerMessage { .close(ConnectionID(rawValue: 1), reason: "") }

  @Test("while it is behind, the mailbox's bounds hold, and all that was taken is handled in the end")
  func bounds() throws {
    let host = try AllocationWorker(Self.script)
    let mailbox = host.worker.mailbox
    host.turn()
    // More than a turn handles.
    for _ in 0..<10_000 { mailbox.post(message) }
    host.turn()
    #expect(host.worker.inboxNext < host.worker.inbox.count)
    #expect(mailbox.postDroppable(message, bytes: 64 << 20) && !mailbox.hasRoom(forBytes: 1))
    host.turn()
    #expect(!mailbox.hasRoom(forBytes: 1), "what has not been got to counts")
    host.turn()
    host.turn()
    #expect(mailbox.hasRoom(forBytes: 1))
    #expect(host.worker.inboxNext == host.worker.inbox.count)
  }

  @Test("the room of an unusually long inbox is given up, and what many bytes took goes back to the system")
  func givesUpRoom() throws {
    let host = try AllocationWorker(Self.script)
    for _ in 0..<50_000 { host.worker.mailbox.post(message) }
    for _ in 0..<20 { host.turn() }
    #expect(host.worker.inbox.capacity < 20_000 && host.worker.relaxation.isDue)

    let other = try AllocationWorker(Self.script)
    #expect(other.worker.mailbox.postDroppable(message, bytes: 1 << 20))
    other.turn()
    #expect(!other.worker.relaxation.isDue)
    #expect(other.worker.mailbox.postDroppable(message, bytes: (1 << 20) + 1))
    other.turn()
    #expect(other.worker.relaxation.isDue)
  }

  @Test("messages gathered into one count each")
  func counts() {
    let records = [UInt8]().withUnsafeBytes { SharedBytes(copying: $0) }
    #expect(WorkerMessage.broadcast(BroadcastPacket(records: records, count: 7, room: nil, except: nil)).count == 7)
    #expect(message.count == 1)
  }
}
