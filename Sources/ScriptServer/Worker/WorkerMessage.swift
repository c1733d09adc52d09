// What other threads tell a worker.

import CompletionIO

/// Broadcasts to the same connections on their way to another worker.
final class BroadcastPacket: Sendable {
  /// The messages as `GatheredBroadcast` lays them out, and how many they are.
  let records: SharedBytes
  let count: Int
  let room: RoomName?
  let except: ConnectionID?

  init(records: SharedBytes, count: Int, room: RoomName?, except: ConnectionID?) {
    self.records = records
    self.count = count
    self.room = room
    self.except = except
  }
}

/// A newly accepted client.
struct AcceptedClient: Sendable {
  let descriptor: Int32
  let listener: UInt16
  /// The client's address as the admission counts it.
  let peerHash: UInt64
}

/// One message to a worker. Each is handled between two handlers, in the order it was posted.
enum WorkerMessage: Sendable {
  case accepted(AcceptedClient)
  case broadcast(BroadcastPacket)
  /// For one connection: framed by its codec, or as it is. Large, or from another thread than a worker's.
  case send(ConnectionID, SharedBytes, framed: Bool)
  /// The same for several, from a worker.
  case sends(SendPacket)
  case close(ConnectionID, reason: String)
  /// For the subscribers to a channel.
  case published(PublishedMessage)
  /// What a suspended task of this worker has waited for.
  case answer(WaitTicket, WaitAnswer)
  /// An outgoing connection of this worker was made at once.
  case connected(ConnectNumber)
  /// A name was looked up.
  case resolved(LookupPurpose, LookupResult)
  /// A line typed at the server's terminal.
  case console(String)
  case connections(ConnectionQuery)
  /// A load of a generation beside the running one.
  case prepare(ReloadTransaction)
  /// The switch, or giving up: see `ReloadTransaction`.
  case commit(ReloadTransaction)
  case discard(ReloadTransaction)
  /// Ends tasks of all generations before this number.
  case endOlder(than: Int)
  /// Much memory that this thread may have taken was freed by another.
  case memoryFreed
  /// Every connection is closed with "shutdown", then the worker ends.
  case stop(reason: String)

  /// Something for connections of this worker.
  var isForClients: Bool {
    switch self {
    case .broadcast, .send, .sends, .close: true
    default: false
    }
  }

  /// Something for functions that scripts have subscribed.
  var isForSubscribers: Bool { if case .published = self { true } else { false } }

  /// How many messages of scripts it stands for; 1 for anything else.
  var count: Int {
    switch self {
    case .broadcast(let packet): packet.count
    case .sends(let packet): packet.count
    default: 1
    }
  }
}
