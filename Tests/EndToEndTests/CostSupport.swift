// Counting what a server does: its heap allocations by a preloaded library, its system calls by strace.
//
// Must never know: what the counts should be.

import Glibc
import TestSupport

/// The heap allocations of a server that is started with this environment; see scripts/counting/allocations.c.
struct AllocationCounts {
  let environment: [String: String?]
  private let path: String

  init(folder: TemporaryFolder) throws {
    let library = folder.file("count-allocations.so")
    let source = ProjectFiles.path("scripts/counting/allocations.c")
    let result = try ChildProcess(Launch("gcc", ["-O2", "-shared", "-fPIC", "-o", library, source]))
    guard try result.waitForExit() == .exited(0) else { throw TestFailure(result.transcript) }
    path = folder.file("allocations")
    environment = ["LD_PRELOAD": library, "COUNT_FILE": path]
  }

  /// The counts until now.
  func read() throws -> (lua: UInt64, swift: UInt64) {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw TestFailure.call("open \(path)") }
    defer { close(descriptor) }
    var counts: [UInt64] = [0, 0]
    guard Glibc.read(descriptor, &counts, 16) == 16 else { throw TestFailure("\(path) is too short") }
    return (counts[0], counts[1])
  }
}

/// The system calls of all threads of a server.
enum SystemCalls {
  /// How often each was made while `body` ran.
  static func during(
    of server: MoonportProcess, folder: TemporaryFolder, _ body: () throws -> Void
  ) throws -> [String: Int] {
    let path = folder.file("trace")
    let tracer = try ChildProcess(Launch("strace", ["-f", "-p", String(server.pid), "-o", path]))
    try tracer.waitForErrors(containing: "attached")
    // Each thread shows by the call that it is in, so all are traced.
    let threads = try server.threadCount()
    try eventually("all \(threads) threads are traced") {
      Set(try lines(of: path).map { $0.prefix { $0 != " " } }).count == threads
    }
    let before = try counts(in: path)
    try body()
    tracer.sendSignal(SIGINT)
    _ = try tracer.waitForExit()
    return try counts(in: path).merging(before) { $0 - $1 }.filter { $0.value != 0 }
  }

  /// A line of strace's is `PID name(arguments) = result`; of a call that another thread's came into, it has two lines, and the second
  /// begins with `<...`.
  private static func counts(in path: String) throws -> [String: Int] {
    var counts: [String: Int] = [:]
    for line in try lines(of: path) {
      let call = line.drop { $0 != " " }.drop { $0 == " " }
      guard let end = call.firstIndex(of: "("), call.first?.isLetter == true else { continue }
      counts[String(call[..<end]), default: 0] += 1
    }
    return counts
  }

  private static func lines(of path: String) throws -> [Substring] {
    guard let file = fopen(path, "r") else { return [] }
    defer { fclose(file) }
    var bytes: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 65_536)
    while true {
      let count = fread(&chunk, 1, chunk.count, file)
      if count == 0 { break }
      bytes += chunk[..<count]
    }
    return String(decoding: bytes, as: UTF8.self).split(separator: "\n")
  }
}
