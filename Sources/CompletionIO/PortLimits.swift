// The port's bounds, each with its reason. Numbers only.

/// Bounds of one port. Each keeps one batch short, so that nobody waits long behind somebody else.
enum PortLimits {
  /// The largest single read: the size at which the cost of the call no longer shows.
  static let readBytesMax = 64 * 1024
  /// A read with less room than this waits for the next batch: smaller ones would cost a bulk transfer more calls.
  static let readBytesMin = 16 * 1024
  /// Reads start at a multiple of this, so that two messages do not share a cache line.
  static let cacheLineBytes = 64
  /// Connections that the listeners accept in one batch, refused and aborted ones included: the newcomers of a burst
  /// wait rather than the connected clients.
  static let acceptsMax = 64
  /// Packets that one batch may bring.
  static let packetsMax = 256
  /// Reads of regular files in one batch: a quarter of the read buffer's full reads, so that sockets keep the rest.
  static let fileReadsMax = 2
  /// Completions that one event may cause other than accepting: a write and a read, or a write and both ends of a relay.
  static let completionsPerEventMax = 3
  /// Bytes that one direction of a relay moves in one batch before others have their turn: about 0.05 ms.
  static let relayBytesMax = 128 * 1024
  /// Directions that go on in one batch without an event, because the last one was too short for them: about 3 ms.
  static let relaysGoingOnMax = 64
  /// How long a listener rests after descriptors or memory ran out, unless a descriptor is closed before. A second is
  /// short for a client that waits and long for a log that is told each time.
  static let exhaustedRestNanoseconds: UInt64 = 1_000_000_000
}
