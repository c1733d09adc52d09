// From an address to a connected socket. Must never know what is said over it.

import Glibc

/// Looks names up and connects.
enum ServerSocket {
  /// How long one address of a name may take, in milliseconds, before the next is tried: longer than any handshake
  /// with one or two losses, far shorter than the system's two minutes.
  private static let connectMillisecondsMax: Int32 = 10_000

  /// A connected, non-blocking socket. Throws why there is none, for the last address that was tried.
  static func connect(to address: AddressText) throws(AddressError) -> Int32 {
    switch address {
    case .unix(let path): try connectUnix(path)
    case .internet(let host, let port): try connectInternet(host.isEmpty ? "localhost" : host, port: port)
    }
  }

  private static func connectUnix(_ path: String) throws(AddressError) -> Int32 {
    var bytes = Array(path.utf8)
    // An abstract name begins with a zero byte and ends where the length says, see unix(7).
    let isAbstract = bytes.first == UInt8(ascii: "@")
    if isAbstract { bytes[0] = 0 }
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: bytes) }
    let pathOffset = MemoryLayout<sockaddr_un>.size - MemoryLayout.size(ofValue: address.sun_path)
    let length = isAbstract ? pathOffset + bytes.count : MemoryLayout<sockaddr_un>.size
    let outcome = unsafe withUnsafePointer(to: &address) { pointer in
      unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { rebound in
        unsafe attempt(family: AF_UNIX, rebound, socklen_t(length))
      }
    }
    return try outcome.get()
  }

  /// Tries each address of the name in the order that getaddrinfo(3) gives.
  private static func connectInternet(_ host: String, port: UInt16) throws(AddressError) -> Int32 {
    var hints = unsafe addrinfo()
    unsafe hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
    unsafe hints.ai_flags = AI_NUMERICSERV
    var list: UnsafeMutablePointer<addrinfo>?
    let error = unsafe getaddrinfo(host, String(port), &hints, &list)
    guard error == 0 else {
      throw AddressError(message: "\"\(host)\": \(unsafe String(cString: gai_strerror(error)))")
    }
    defer { unsafe freeaddrinfo(list) }
    var outcome = Result<Int32, AddressError>.failure(AddressError(message: "\"\(host)\" has no address"))
    var next = unsafe list
    while let entry = unsafe next {
      if let target = unsafe entry.pointee.ai_addr {
        outcome = unsafe attempt(family: entry.pointee.ai_family, target, entry.pointee.ai_addrlen)
        if case .success(let descriptor) = outcome {
          sendAtOnce(descriptor)
          return descriptor
        }
      }
      unsafe next = entry.pointee.ai_next
    }
    return try outcome.get()
  }

  private static func attempt(
    family: Int32, _ address: UnsafePointer<sockaddr>, _ length: socklen_t
  ) -> Result<Int32, AddressError> {
    let kind = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue)
    let descriptor = socket(family, kind, 0)
    guard descriptor >= 0 else { return .failure(AddressError(message: reason(errno))) }
    var error: Int32 = unsafe Glibc.connect(descriptor, address, length) == 0 ? 0 : errno
    // An interrupted connect(2) goes on in the background, just like a non-blocking one.
    if error == EINPROGRESS || error == EINTR { error = completion(of: descriptor) }
    if error == 0 { return .success(descriptor) }
    _ = close(descriptor)
    return .failure(AddressError(message: reason(error)))
  }

  /// Waits for a connection that is under way: 0 or its error number.
  private static func completion(of descriptor: Int32) -> Int32 {
    let end = ContinuousClock.now + .milliseconds(Int64(connectMillisecondsMax))
    while true {
      var entry = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
      let ready = unsafe poll(&entry, 1, connectMillisecondsMax)
      if ready > 0 { break }
      if ready == 0 || ContinuousClock.now >= end { return ETIMEDOUT }
    }
    var error: Int32 = 0
    var length = socklen_t(MemoryLayout<Int32>.size)
    guard unsafe getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &error, &length) == 0 else { return errno }
    return error
  }

  /// A typed line must not wait for the acknowledgement of the one before. See TCP_NODELAY in tcp(7).
  private static func sendAtOnce(_ descriptor: Int32) {
    var on: Int32 = 1
    unsafe _ = setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &on, socklen_t(MemoryLayout<Int32>.size))
  }

  private static func reason(_ error: Int32) -> String {
    unsafe strerror(error).map { unsafe String(cString: $0) } ?? "error \(error)"
  }
}
