// Opening sockets: listening ones, and unconnected ones for a connect. It must never accept, and never know who serves
// the connections.

import CLinux
import Glibc
import SystemPackage

/// A bound, listening stream socket and the address it really has.
public struct Listener: ~Copyable {
  /// Where it listens; port 0 is resolved, and ":port" stays ":port".
  public let address: SocketAddress
  /// The listening descriptor, non-blocking and closed on exec.
  public let descriptor: Descriptor

  /// How many times a bind is tried: once, and once more after a dead server's socket file was removed.
  private static let bindAttemptsMax = 2

  private init(address: SocketAddress, descriptor: consuming Descriptor) {
    self.address = address
    self.descriptor = descriptor
  }

  /// Opens, binds and listens. socket(2), bind(2), listen(2).
  ///
  /// TCP listeners get SO_REUSEADDR, and TCP_NODELAY, which accepted connections inherit. ":port" serves IPv6 and IPv4,
  /// or IPv4 alone where the system has no IPv6. A Unix-domain socket file on which nobody answers is replaced; one on
  /// which somebody answers is `.addressInUse`, and so is a file that is no socket.
  ///
  /// - Parameters:
  ///   - backlog: connections that may wait to be accepted; the kernel cuts it to net.core.somaxconn.
  ///   - permissions: the socket file's mode bits, set before anyone can connect; nil leaves them to the umask.
  ///   - keepAliveSeconds: after how long a silence a TCP connection is asked whether its other end is still there, which
  ///     accepted connections inherit; nil never asks. SO_KEEPALIVE of socket(7), TCP_KEEPIDLE of tcp(7).
  public static func open(
    _ address: SocketAddress, backlog: Int32 = 4096, permissions: mode_t? = nil, keepAliveSeconds: Int32? = nil
  ) throws(Errno) -> Listener {
    let listener = try openAnyVersion(address, backlog: backlog, permissions: permissions)
    guard let keepAliveSeconds, !address.isUnix else { return listener }
    do {
      try keepAlive(listener.descriptor.rawValue, seconds: keepAliveSeconds)
    } catch {
      listener.close()
      throw error
    }
    return listener
  }

  private static func openAnyVersion(
    _ address: SocketAddress, backlog: Int32, permissions: mode_t?
  ) throws(Errno) -> Listener {
    do {
      return try open(exactly: address, backlog: backlog, permissions: permissions)
    } catch {
      let hasNoVersion6 = error == .addressFamilyNotSupported || error == .addressNotAvailable
      guard address.isEveryInterface, hasNoVersion6, let port = address.port else { throw error }
      return try open(exactly: SocketAddress(version4: in_addr(), port: port), backlog: backlog, permissions: nil)
    }
  }

  private static func open(
    exactly address: SocketAddress, backlog: Int32, permissions: mode_t?
  ) throws(Errno) -> Listener {
    let descriptor = Descriptor(adopting: try SystemCall.checked { Int(clinux_stream_socket(address.family)) })
    do {
      try prepare(descriptor.rawValue, for: address)
      try bind(descriptor.rawValue, to: address)
      if let permissions, let path = address.socketFilePath {
        try SystemCall.checked { unsafe Int(chmod(path, permissions)) }
      }
      try SystemCall.checked { Int(listen(descriptor.rawValue, backlog)) }
      let bound = address.withPort(of: try .local(of: descriptor.rawValue))
      return Listener(address: bound, descriptor: descriptor)
    } catch {
      descriptor.close()
      throw error
    }
  }

  /// Three questions without an answer, a minute apart, and the other end is taken for gone.
  private static func keepAlive(_ descriptor: CInt, seconds: Int32) throws(Errno) {
    try SystemCall.setOption(descriptor, level: SOL_SOCKET, name: SO_KEEPALIVE, to: 1)
    try SystemCall.setOption(descriptor, level: CInt(IPPROTO_TCP), name: TCP_KEEPIDLE, to: seconds)
    try SystemCall.setOption(descriptor, level: CInt(IPPROTO_TCP), name: TCP_KEEPINTVL, to: 60)
    try SystemCall.setOption(descriptor, level: CInt(IPPROTO_TCP), name: TCP_KEEPCNT, to: 3)
  }

  private static func prepare(_ descriptor: CInt, for address: SocketAddress) throws(Errno) {
    if address.isUnix { return }
    try SystemCall.setOption(descriptor, level: SOL_SOCKET, name: SO_REUSEADDR, to: 1)
    try SystemCall.setOption(descriptor, level: CInt(IPPROTO_TCP), name: TCP_NODELAY, to: 1)
    if address.isEveryInterface {
      try SystemCall.setOption(descriptor, level: CInt(IPPROTO_IPV6), name: IPV6_V6ONLY, to: 0)
    }
  }

  private static func bind(_ descriptor: CInt, to address: SocketAddress) throws(Errno) {
    var attempt = 1
    while true {
      do {
        try SystemCall.checked { unsafe Int(address.withSockAddr { unsafe Glibc.bind(descriptor, $0, $1) }) }
        return
      } catch {
        let isTaken = error == .addressInUse && attempt < bindAttemptsMax
        guard isTaken, address.removeStaleSocketFile() else { throw error }
        attempt += 1
      }
    }
  }

  /// Gives the descriptor away, usually to `CompletionPort.associate`. Whoever closes it calls
  /// `address.removeStaleSocketFile()` afterwards.
  public consuming func take() -> Descriptor { descriptor }

  /// Stops listening and removes the socket file, if there is one.
  public consuming func close() {
    let address = address
    descriptor.close()
    address.removeStaleSocketFile()
  }
}

extension SocketAddress {
  /// Removes the socket file of a Unix-domain address on which nobody listens any more; call it after the listener's
  /// descriptor was closed. A file that is no socket, or on which somebody answers, is left alone.
  ///
  /// - Returns: whether a file was removed.
  @discardableResult
  public func removeStaleSocketFile() -> Bool {
    guard let path = socketFilePath else { return false }
    var status = stat()
    guard unsafe lstat(path, &status) == 0, status.st_mode & S_IFMT == S_IFSOCK else { return false }
    guard let probe = try? openSocket() else { return false }
    let outcome = SystemCall.connect(probe.rawValue, to: self)
    probe.close()
    // Only a refusal proves that nobody listens; a full backlog, for one, is somebody.
    guard case .failed(.connectionRefused) = outcome else { return false }
    return unsafe unlink(path) == 0
  }

  /// A new socket for `CompletionPort`'s `.connect` to this address: non-blocking, closed on exec, with TCP_NODELAY.
  /// socket(2).
  public func openSocket() throws(Errno) -> Descriptor {
    let descriptor = Descriptor(adopting: try SystemCall.checked { Int(clinux_stream_socket(family)) })
    do {
      if !isUnix {
        try SystemCall.setOption(descriptor.rawValue, level: CInt(IPPROTO_TCP), name: TCP_NODELAY, to: 1)
      }
      return descriptor
    } catch {
      descriptor.close()
      throw error
    }
  }
}
