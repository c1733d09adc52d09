// What the server keeps for one client, in one slot of its worker's table. Plain data: what happens to it is the worker's.

import Codecs
import CompletionIO
import LuaRuntime

/// Where a connection is in its life.
enum ConnectionPhase: UInt8 {
  /// The slot is not in use.
  case free
  /// Messages come and go.
  case open
  /// The client has ended its side and all it sent was handed over; running handlers finish, then the rest is flushed.
  case ending
  /// Closed from our side: what is queued still goes out.
  case flushing
  /// Our side has ended too; what the client still sends is read and dropped for a bounded time.
  case lingering
}

/// One bit each.
struct ConnectionFlags: OptionSet {
  let rawValue: UInt16

  /// A handler of on_open or on_message runs or is suspended; later messages wait.
  static let busy = ConnectionFlags(rawValue: 1 << 0)
  /// The client has ended its side.
  static let endOfStream = ConnectionFlags(rawValue: 1 << 1)
  /// The script called `pause`.
  static let scriptPaused = ConnectionFlags(rawValue: 1 << 2)
  /// Reading stopped because the client does not read (policy `pause`).
  static let outputPaused = ConnectionFlags(rawValue: 1 << 3)
  /// A read is submitted to the port.
  static let reading = ConnectionFlags(rawValue: 1 << 4)
  /// A write waits in the port; the first chunk must stay.
  static let writing = ConnectionFlags(rawValue: 1 << 5)
  /// In the list of connections to flush at the end of the turn.
  static let dirty = ConnectionFlags(rawValue: 1 << 6)
  /// Over the soft output limit since `softSince`.
  static let overSoft = ConnectionFlags(rawValue: 1 << 7)
  /// In the list of connections that go on with buffered messages in the next turn.
  static let ready = ConnectionFlags(rawValue: 1 << 8)
  /// Its messages are being cut at this moment, further up the stack.
  static let cutting = ConnectionFlags(rawValue: 1 << 9)
  /// Made by the server's own side (`moonport.connect`).
  static let outgoing = ConnectionFlags(rawValue: 1 << 10)
  /// The script gave it a codec of its own, so that a reload does not change it.
  static let ownCodec = ConnectionFlags(rawValue: 1 << 11)
  /// Its bytes are passed on to another connection and back; handlers and scripts have no part in them.
  static let piped = ConnectionFlags(rawValue: 1 << 12)
  /// An outgoing connection without on_message: what comes waits for `receive`.
  static let unheard = ConnectionFlags(rawValue: 1 << 13)
  /// It has sent as many messages as its rate allows for now (`message_rate`).
  static let rateHeld = ConnectionFlags(rawValue: 1 << 14)

  /// While one of these is set, messages that have come wait.
  static let holdsMessages: ConnectionFlags = [.busy, .scriptPaused, .outputPaused, .unheard, .rateHeld]
  /// While one of these is set, not even the handler that runs gets more.
  static let paused: ConnectionFlags = [.scriptPaused, .outputPaused, .rateHeld]
  /// While one of these is set, not even a waiting `receive` gets anything.
  static let starved: ConnectionFlags = [.outputPaused, .rateHeld]
}

/// One client. What a broadcast touches comes first: with a thousand clients each cache line of it is a wait.
struct Connection: ~Copyable {
  var key = HandleKey.none
  var phase = ConnectionPhase.free
  var flags: ConnectionFlags = []
  /// The listener it came through, an index of the server's table; 0 for an outgoing connection.
  var listener: UInt16 = 0
  /// Index in the worker's codec table.
  var codec: UInt16 = 0
  /// What waits to be sent.
  var output = SendQueue()
  var bytesOut: UInt64 = 0
  var messagesOut: UInt32 = 0

  var messagesIn: UInt32 = 0
  var bytesIn: UInt64 = 0
  /// The object that scripts see.
  var object = LuaReference.none
  /// The suspended task that takes the next message, if any.
  var receiver = TaskToken.none
  /// Index of the handlers of an outgoing connection; -1 for a client, who has its listener's.
  var handlers: Int32 = -1
  /// Index of the pair it is piped in, while `.piped`.
  var pipe: Int32 = -1
  /// Handlers and tasks of this connection that have not finished.
  var activeTasks: Int32 = 0
  /// Its place among the worker's open connections.
  var openIndex: Int32 = -1

  var decoder = FrameDecoder()
  var inbound = InboundBuffer()
  /// The rooms it is in, as first link of the rooms' own chain.
  var memberships: Int32 = -1

  /// The one deadline that is scheduled for it, and when that is (ns); what it means follows from the phase.
  var deadline = DeadlineKey.none
  var deadlineAt: UInt64 = .max
  var openedAt: UInt64 = 0
  /// When the last complete message came.
  var lastMessageAt: UInt64 = 0
  /// When the first byte of the message that is still incomplete came; 0 between messages.
  var messageBegunAt: UInt64 = 0
  var softSince: UInt64 = 0
  /// The value of `messagesIn` at which its rate's tokens are used up, as of `rateRefilledAt` (ns).
  var messagesAllowed: UInt32 = 0
  var rateRefilledAt: UInt64 = 0
  /// When a closed connection must have taken what is queued (ns).
  var flushUntil: UInt64 = .max
  /// The client's address as the server's admission counts it.
  var peerHash: UInt64 = 0

  /// As many bytes from its start hold all that a broadcast touches.
  static let sendingBytes = 64

  /// True while scripts may use it.
  var isUsable: Bool { phase == .open || phase == .ending }
}
