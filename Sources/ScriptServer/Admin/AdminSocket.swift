// The system calls on Unix-domain sockets that listener and client share. Must never know the protocol.

import Glibc

/// The system's text for an error number, as in strerror(3).
func systemMessage(_ number: Int32) -> String {
  unsafe strerror(number).map { unsafe String(cString: $0) } ?? "error \(number)"
}

/// Blocking-free helpers over Unix-domain stream sockets.
enum AdminSocket {
  /// A new descriptor, closed on exec. `nonblocking` sets O_NONBLOCK. See socket(2).
  static func make(nonblocking: Bool) throws(AdminFailure) -> Int32 {
    let kind = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
    let flags = nonblocking ? Int32(SOCK_NONBLOCK.rawValue) : 0
    let descriptor = socket(AF_UNIX, kind | flags, 0)
    guard descriptor >= 0 else { throw AdminFailure("cannot make a socket: \(systemMessage(errno))") }
    return descriptor
  }

  /// bind(2) to `path`, which `AdminPath.validate` accepted; 0 or the error number.
  static func bind(_ descriptor: Int32, to path: String) -> Int32 {
    unsafe withAddress(path) { address, length in
      unsafe Glibc.bind(descriptor, address, length) == 0 ? 0 : errno
    }
  }

  /// connect(2) to `path`, which `AdminPath.validate` accepted; 0 or the error number. An interrupted call is
  /// repeated: for Unix-domain sockets it has not happened then.
  static func connect(_ descriptor: Int32, to path: String) -> Int32 {
    unsafe withAddress(path) { address, length in
      while true {
        if unsafe Glibc.connect(descriptor, address, length) == 0 { return 0 }
        if errno != EINTR { return errno }
      }
    }
  }

  /// The user at the other end, nil if the system cannot tell. See SO_PEERCRED in unix(7).
  static func peerUserID(_ descriptor: Int32) -> UInt32? {
    // struct ucred: process, user and group, 32 bits each.
    var credentials: (processID: Int32, userID: UInt32, groupID: UInt32) = (0, 0, 0)
    var length = socklen_t(MemoryLayout.size(ofValue: credentials))
    let result = unsafe withUnsafeMutablePointer(to: &credentials) { pointer in
      unsafe getsockopt(descriptor, SOL_SOCKET, SO_PEERCRED, pointer, &length)
    }
    guard result == 0, Int(length) == MemoryLayout.size(ofValue: credentials) else { return nil }
    return credentials.userID
  }

  private static func withAddress(
    _ path: String, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32
  ) -> Int32 {
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    precondition(path.utf8.count < MemoryLayout.size(ofValue: address.sun_path), "an admin path is validated first")
    unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: path.utf8) }
    return unsafe withUnsafePointer(to: &address) { pointer in
      unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { rebound in
        unsafe body(rebound, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
  }
}
