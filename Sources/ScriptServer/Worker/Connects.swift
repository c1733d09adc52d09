// Outgoing connections that are not made yet, and the handlers of those that are. Plain data: what happens to it is the worker's.

import CompletionIO
import Glibc
import LuaRuntime

/// Which of a worker's connects one is; never used again.
typealias ConnectNumber = UInt64

/// Why a connection could not be made, in the order of how much that tells: of several addresses the one that tells most counts.
enum ConnectFailure: Int, Comparable {
  case unreachable, timeout, notFound, forbidden, tooMany, refused

  /// What `connect` returns behind nil.
  var reason: StaticString {
    switch self {
    case .refused: "refused"
    case .timeout: "timeout"
    case .unreachable: "unreachable"
    case .notFound: "not found"
    case .forbidden: "forbidden"
    case .tooMany: "too many connections"
    }
  }

  /// What connect(2) or socket(2) failed with.
  init(errorNumber: Int32) {
    switch errorNumber {
    case ECONNREFUSED, ECONNRESET, ECONNABORTED, EPROTOTYPE, EAGAIN: self = .refused
    case ETIMEDOUT: self = .timeout
    case ENOENT, ENOTDIR: self = .notFound
    case EACCES, EPERM: self = .forbidden
    case EMFILE, ENFILE, ENOBUFS, ENOMEM, ENOSPC: self = .tooMany
    default: self = .unreachable
    }
  }

  static func < (left: ConnectFailure, right: ConnectFailure) -> Bool { left.rawValue < right.rawValue }
}

/// One call of `moonport.connect` that waits.
struct PendingConnect {
  let ticket: WaitTicket
  /// The whole of it ends here, by the port's clock.
  let until: UInt64
  let port: UInt16
  /// Index of the codec, held until the connection has it.
  let codec: UInt16
  /// Index of the handlers, held likewise.
  let handlers: Int32
  /// Addresses not tried yet, the next one last.
  var addresses: [SocketAddress] = []
  /// The socket that is being connected.
  var key = HandleKey.none
  /// When the next address gets its turn.
  var deadline = DeadlineKey.none
  /// What the addresses before have failed with.
  var failure: ConnectFailure?
}

/// The table of pending connects. Owned by the worker's thread.
struct ConnectTable {
  private var pending: [ConnectNumber: PendingConnect] = [:]
  private var numbers: [HandleKey: ConnectNumber] = [:]
  private var lastNumber: ConnectNumber = 0

  /// Enters one and names it.
  mutating func insert(_ connect: PendingConnect) -> ConnectNumber {
    lastNumber += 1
    pending[lastNumber] = connect
    return lastNumber
  }

  /// The connect of this number, while it is pending.
  subscript(number: ConnectNumber) -> PendingConnect? { pending[number] }

  /// The connect whose socket this is.
  func number(of key: HandleKey) -> ConnectNumber? { numbers[key] }

  /// Changes one that is pending.
  mutating func update(_ number: ConnectNumber, _ change: (inout PendingConnect) -> Void) {
    guard var connect = pending[number] else { return }
    if connect.key != .none { numbers[connect.key] = nil }
    change(&connect)
    if connect.key != .none { numbers[connect.key] = number }
    pending[number] = connect
  }

  /// Takes one out.
  mutating func remove(_ number: ConnectNumber) -> PendingConnect? {
    guard let connect = pending.removeValue(forKey: number) else { return nil }
    if connect.key != .none { numbers[connect.key] = nil }
    return connect
  }

  /// The numbers of all.
  var all: [ConnectNumber] { Array(pending.keys) }
}

/// The handlers of outgoing connections.
struct OutgoingHandlers {
  var handlers = HandlerSet()
  /// Connections, connects and closes to be reported that use them.
  var uses = 0
  /// The generation whose code they are.
  var codeGeneration = 0
  /// The name of the table in the one that the script returns, by which the next generation's is found; nil for any other
  /// table, whose functions stay with their connections.
  var name: String?
  /// Whether the references in `handlers` are given back with the last use, or with their generation.
  var ownsReferences = false
}

/// The handlers by index. Owned by the worker's thread.
struct OutgoingHandlersTable {
  /// Index of the handlers of a connection that was made without any.
  static let none: Int32 = 0

  private var entries = [OutgoingHandlers(uses: 1)]
  private var free: [Int32] = []
  private var named: [String: Int32] = [:]

  subscript(index: Int32) -> OutgoingHandlers {
    @inline(__always) get { entries[Int(index)] }
  }

  /// Enters handlers for one user.
  mutating func insert(_ new: OutgoingHandlers) -> Int32 {
    var new = new
    new.uses = 1
    let index = free.popLast() ?? Int32(entries.count)
    if Int(index) < entries.count { entries[Int(index)] = new } else { entries.append(new) }
    if let name = new.name { named[name] = index }
    return index
  }

  /// One more user of the handlers of this name; nil when nobody uses them yet.
  mutating func retain(named name: String) -> Int32? {
    guard let index = named[name] else { return nil }
    retain(index)
    return index
  }

  mutating func retain(_ index: Int32) { entries[Int(index)].uses += 1 }

  /// One user less; the references of handlers that nobody uses any more are given back to `lua`.
  mutating func release(_ index: Int32, lua: LuaState) {
    if index <= Self.none { return }
    entries[Int(index)].uses -= 1
    guard entries[Int(index)].uses == 0 else { return }
    let entry = entries[Int(index)]
    if entry.ownsReferences { for reference in entry.handlers.references { lua.release(reference) } }
    if let name = entry.name { named[name] = nil }
    entries[Int(index)] = OutgoingHandlers()
    free.append(index)
  }

  /// A new generation is live: named handlers become its own. Those whose name it does not have keep their functions, whose
  /// references are taken from the old generation.
  mutating func goOn(with new: Generation, after old: Generation) {
    for (name, index) in named {
      if let handlers = new.namedHandlers[name] {
        entries[Int(index)].handlers = handlers
        entries[Int(index)].codeGeneration = new.number
      } else {
        let kept = entries[Int(index)].handlers.references
        old.references.removeAll { kept.contains($0) }
        entries[Int(index)].ownsReferences = true
        entries[Int(index)].name = nil
        named[name] = nil
      }
    }
  }
}
