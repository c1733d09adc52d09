// How many cores this process may use. Must never know what for.

import Glibc

/// The cores that the default number of workers follows.
package enum CoreCount {
  /// What of /proc/self/status is looked at, in bytes; the file is about 1,500 long.
  private static let statusBytesMax = 8192

  /// The cores that this process may run on, at least 1: fewer than the machine's in a container or under taskset(1).
  package static var usable: Int {
    max(allowed() ?? Int(sysconf(Int32(_SC_NPROCESSORS_ONLN))), 1)
  }

  /// The set bits of `Cpus_allowed` in /proc/self/status, see proc_pid_status(5); nil where there is no /proc.
  private static func allowed() -> Int? {
    let descriptor = unsafe open("/proc/self/status", O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { return nil }
    defer { _ = close(descriptor) }
    var bytes = [UInt8](repeating: 0, count: statusBytesMax)
    let count = unsafe bytes.withUnsafeMutableBytes { unsafe read(descriptor, $0.baseAddress, $0.count) }
    guard count > 0 else { return nil }
    return allowed(inStatus: String(decoding: bytes[..<count], as: UTF8.self))
  }

  /// The set bits of the line `Cpus_allowed:\tff,ffffffff`; nil without such a line or a set bit.
  package static func allowed(inStatus status: String) -> Int? {
    let label = "Cpus_allowed:"
    guard let line = status.split(separator: "\n").first(where: { $0.hasPrefix(label) }) else { return nil }
    let bits = line.dropFirst(label.count).reduce(0) { $0 + ($1.hexDigitValue ?? 0).nonzeroBitCount }
    return bits > 0 ? bits : nil
  }
}
