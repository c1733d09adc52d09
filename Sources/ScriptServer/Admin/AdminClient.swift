// The operator's side of the admin channel: one request, one reply, printed. Must never know the server's inside.

import Glibc

/// Sends one request to a running server and prints its reply.
package enum AdminClient {
  /// How long a server may take to say that it is there, in seconds; its control thread answers at once.
  static let pingTimeoutSeconds: Double = 1
  /// How long a server may take for a quick request, in seconds: a turn of the slowest worker is far shorter.
  static let quickTimeoutSeconds: Double = 30
  /// Bytes asked for in one read: a status in one piece, a long table in a few.
  private static let readBytes = 65_536

  /// Carries `request` to the server at `adminPath`, or to the only one that runs; prints its answer.
  ///
  /// Returns the exit status: 0 with the text on standard output, 1 with the reason on standard error.
  package static func run(_ request: AdminRequest, adminPath: String?) -> Int32 {
    do throws(AdminFailure) {
      let path = try AdminDiscovery.path(option: adminPath, surroundings: .current)
      let reply = try exchange(request, path: path, timeoutSeconds: request.timeoutSeconds)
      printLine(reply.text, to: reply.status == 0 ? STDOUT_FILENO : STDERR_FILENO)
      return reply.status
    } catch {
      printLine("moonport: \(error.message)", to: STDERR_FILENO)
      return 1
    }
  }

  /// Sends `request` to the server at `path` and waits for the reply, at most `timeoutSeconds` (nil: as long as the
  /// server lives). For a request that ends the server it then waits for the connection's end as well.
  package static func exchange(
    _ request: AdminRequest, path: String, timeoutSeconds: Double?
  ) throws(AdminFailure) -> AdminReply {
    let bytes = try AdminProtocol.encodeRequest(request.words)
    let deadline = Deadline(seconds: timeoutSeconds)
    let descriptor = try connect(to: path)
    defer { _ = close(descriptor) }
    try send(bytes, on: descriptor, deadline: deadline)
    return try receive(request, on: descriptor, deadline: deadline)
  }

  private static func connect(to path: String) throws(AdminFailure) -> Int32 {
    try AdminPath.validate(path)
    let descriptor = try AdminSocket.make(nonblocking: true)
    let error = AdminSocket.connect(descriptor, to: path)
    if error == 0 { return descriptor }
    _ = close(descriptor)
    switch error {
    case ENOENT:
      throw AdminFailure("there is no admin socket at \(path); does the server run, with the same --admin PATH?")
    case ECONNREFUSED:
      throw AdminFailure("no server answers at \(path); it has ended without removing its socket")
    case EAGAIN:
      throw AdminFailure("the server at \(path) is too busy to answer: too many admin requests wait already; try again")
    case EACCES:
      throw AdminFailure("no permission for \(path): only the user who runs the server, and root, may use it")
    default:
      throw AdminFailure("cannot connect to \(path): \(systemMessage(error))")
    }
  }

  private static func send(_ bytes: [UInt8], on descriptor: Int32, deadline: Deadline) throws(AdminFailure) {
    var sent = 0
    while sent < bytes.count {
      let count = unsafe bytes.withUnsafeBytes { buffer in
        unsafe Glibc.send(descriptor, buffer.baseAddress! + sent, buffer.count - sent, Int32(MSG_NOSIGNAL))
      }
      if count >= 0 {
        sent += count
      } else if errno == EAGAIN {
        try deadline.wait(for: Int16(POLLOUT), on: descriptor)
      } else if errno != EINTR {
        // The server may have refused the request and said why before it closed: what it said is read next.
        return
      }
    }
  }

  private static func receive(
    _ request: AdminRequest, on descriptor: Int32, deadline: Deadline
  ) throws(AdminFailure) -> AdminReply {
    var received: [UInt8] = []
    var reply: AdminReply?
    var chunk = [UInt8](repeating: 0, count: readBytes)
    while true {
      let count = unsafe chunk.withUnsafeMutableBytes { buffer in
        unsafe recv(descriptor, buffer.baseAddress, buffer.count, 0)
      }
      if count > 0 {
        guard reply == nil else { continue }
        received += chunk[..<count]
        reply = try Self.reply(in: received)
        if let reply, !request.endsServer { return reply }
      } else if count == 0 || (errno != EAGAIN && errno != EINTR) {
        if let reply { return reply }
        return try Self.reply(missingFor: request, hasBegun: !received.isEmpty)
      } else if errno == EAGAIN {
        try deadline.wait(for: Int16(POLLIN), on: descriptor)
      }
    }
  }

  /// The reply that `received` begins with, nil while some of it is missing. Bytes that can never become one are an error
  /// at once: who sent them may send more without end, or never close.
  private static func reply(in received: [UInt8]) throws(AdminFailure) -> AdminReply? {
    switch AdminProtocol.decodeReply(received) {
    case .complete(let reply): return reply
    case .incomplete: return nil
    case .invalid(let reason):
      throw AdminFailure("the server's reply makes no sense (\(reason)); is it a moonport server?")
    }
  }

  /// What to make of a connection that ended before the reply was whole.
  private static func reply(
    missingFor request: AdminRequest, hasBegun: Bool
  ) throws(AdminFailure) -> AdminReply {
    if request.endsServer && !hasBegun { return AdminReply(status: 0, text: "the server has ended") }
    throw AdminFailure("the server closed the connection before it answered; its log may say why")
  }

  /// Writes `text` and a line end, if it has none, to a standard stream; nothing for an empty text. A stream that is
  /// closed or full is nobody's loss but the reader's.
  static func printLine(_ text: String, to descriptor: Int32) {
    guard !text.isEmpty else { return }
    let bytes = Array((text.hasSuffix("\n") ? text : text + "\n").utf8)
    var written = 0
    while written < bytes.count {
      let count = unsafe bytes.withUnsafeBytes { buffer in
        unsafe write(descriptor, buffer.baseAddress! + written, buffer.count - written)
      }
      if count > 0 { written += count } else if count == 0 || errno != EINTR { return }
    }
  }
}

extension AdminRequest {
  /// Whether the server ends when it has done this.
  package var endsServer: Bool {
    switch self {
    case .drain, .stop: true
    default: false
    }
  }

  /// How long the client waits for the reply, in seconds; nil for what may take as long as it takes: a script may
  /// load slowly, and clients may finish late.
  var timeoutSeconds: Double? {
    switch self {
    case .reload, .rollback, .drain, .stop: nil
    case .ping: AdminClient.pingTimeoutSeconds
    case .status, .connections, .kick, .broadcast: AdminClient.quickTimeoutSeconds
    }
  }
}

/// A point on the monotonic clock until which to wait.
private struct Deadline {
  private let seconds: Double?
  private let end: ContinuousClock.Instant?

  init(seconds: Double?) {
    self.seconds = seconds
    end = seconds.map { ContinuousClock.now + .seconds($0) }
  }

  /// Waits until `events` happen on `descriptor`; throws when the deadline passes first. See poll(2).
  func wait(for events: Int16, on descriptor: Int32) throws(AdminFailure) {
    while true {
      var entry = pollfd(fd: descriptor, events: events, revents: 0)
      if unsafe poll(&entry, 1, remainingMilliseconds()) > 0 { return }
      if let end, ContinuousClock.now >= end {
        throw AdminFailure("the server did not answer within \(seconds ?? 0) s; is it stopped or overloaded?")
      }
    }
  }

  private func remainingMilliseconds() -> Int32 {
    guard let end else { return -1 }
    let remaining = (end - ContinuousClock.now).components
    let milliseconds = remaining.seconds * 1000 + remaining.attoseconds / 1_000_000_000_000_000 + 1
    return Int32(clamping: max(0, milliseconds))
  }
}
