// What the kernel tells of a running process, for tests of leaks and of spinning.
//
// Must never know: what the process is.

import Glibc

extension ChildProcess {
  /// Memory in use that is resident, in bytes: the second field of proc(5)'s statm.
  package func residentBytes() throws -> Int {
    let fields = try readSmallFile("/proc/\(pid)/statm").split(separator: " ")
    guard fields.count > 1, let pages = Int(fields[1]) else { throw TestFailure("statm of process \(pid) is empty") }
    return pages * Int(sysconf(Int32(_SC_PAGESIZE)))
  }

  /// How many descriptors are open.
  package func descriptorCount() throws -> Int { try folderEntries("/proc/\(pid)/fd").count }

  /// How many threads there are.
  package func threadCount() throws -> Int { try folderEntries("/proc/\(pid)/task").count }

  /// Time spent on a processor by the threads that run now, in seconds: the first field of each one's schedstat.
  package func processorSeconds() throws -> Double {
    var nanoseconds = 0.0
    for thread in try folderEntries("/proc/\(pid)/task") {
      // A thread may end between the two looks.
      guard let text = try? readSmallFile("/proc/\(pid)/task/\(thread)/schedstat") else { continue }
      nanoseconds += text.split(separator: " ").first.flatMap { Double($0) } ?? 0
    }
    return nanoseconds / 1e9
  }
}

extension ChildProcess {
  /// What the kernel tells of each thread: the status of proc(5), as a whole.
  package func threadStatuses() throws -> [String] {
    try folderEntries("/proc/\(pid)/task").map { try readSmallFile("/proc/\(pid)/task/\($0)/status") }
  }
}

extension MoonportProcess {
  package func threadStatuses() throws -> [String] { try child.threadStatuses() }
  package func residentBytes() throws -> Int { try child.residentBytes() }
  package func descriptorCount() throws -> Int { try child.descriptorCount() }
  package func threadCount() throws -> Int { try child.threadCount() }
  package func processorSeconds() throws -> Double { try child.processorSeconds() }
}

/// The text of a file of one read at most, as those in /proc are.
package func readSmallFile(_ path: String) throws -> String {
  let descriptor = open(path, O_RDONLY | O_CLOEXEC)
  guard descriptor >= 0 else { throw TestFailure.call("open \(path)") }
  defer { close(descriptor) }
  var buffer = [UInt8](repeating: 0, count: 4_096)
  let count = read(descriptor, &buffer, buffer.count)
  guard count >= 0 else { throw TestFailure.call("read \(path)") }
  return String(decoding: buffer[..<count], as: UTF8.self)
}
