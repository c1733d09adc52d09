// What the attacks of scripts/torture share: what every one of them must leave behind, its line in the suite's table, and the
// libraries that are preloaded to make the kernel misbehave.
//
// Must never know: a single attack.

import Glibc
import TestSupport
import Testing

/// An attack on a server, and what is expected of the server afterwards.
struct Siege {
  /// The memory that may be resident beyond what was before, as a fraction: what the allocator keeps in pieces.
  private static let growthMax = 0.02
  /// How often an attack is repeated until the memory has stopped growing. What is lost with each round never does.
  private static let roundsMax = 8

  let name: String
  let server: MoonportProcess
  /// Connections of the test itself that stay open all the time.
  var standing = 0

  /// Carries out `attack` once to warm the server up and then again. After each the server must live and answer, have exactly
  /// the descriptors that it had, and in the end no more memory. Prints the line of the table with what `attack` returned last.
  func withstand(_ attack: () throws -> String) throws {
    _ = try attack()
    try settle(descriptors: nil)
    let descriptors = try server.descriptorCount()
    var before = try server.residentBytes()
    for round in 1... {
      let outcome = try attack()
      try settle(descriptors: descriptors)
      let after = try server.residentBytes()
      let growth = Double(after - before) / Double(before)
      if growth <= Siege.growthMax {
        let now = try server.descriptorCount()
        return report(
          "\(outcome); descriptors \(descriptors) = \(now); memory \(megabytes(before)) -> \(megabytes(after)) "
            + growthText(before, after))
      }
      if round == Siege.roundsMax {
        throw TestFailure("\(name): after \(round) rounds memory still grows, from \(before) to \(after) bytes")
      }
      before = after
    }
  }

  /// Prints a line of the table; scripts/torture looks for its beginning.
  func report(_ outcome: String) { print("torture: \(name): \(outcome)") }

  /// Waits until all but the standing connections have gone, and shows that the server serves.
  private func settle(descriptors: Int?) throws {
    try eventually("\(name): all connections are closed", timeout: Patience.scaled(60)) {
      // A server whose system calls fail may fail to answer, too.
      (try? server.status())?["connections"].integer == standing
    }
    if let descriptors {
      try eventually("\(name): descriptors are back at \(descriptors)") { try server.descriptorCount() == descriptors }
    } else {
      // What still lingers or is flushed closes within seconds.
      var count = -1
      try eventually("\(name): the number of descriptors is settled") {
        let now = try server.descriptorCount()
        defer { count = now }
        usleep(300_000)
        return now == count
      }
    }
    guard server.child.isRunning else { throw TestFailure("\(name): the server has ended\n\(server.child.transcript)") }
  }

  private func megabytes(_ bytes: Int) -> String {
    let tenths = (bytes * 10 + 524_288) / 1_048_576
    return "\(tenths / 10).\(tenths % 10) MB"
  }
}

/// How much `after` is more than `before`, for the table: "(+0.4 %)". scripts/torture looks for the largest.
func growthText(_ before: Int, _ after: Int) -> String {
  let tenths = Int((Double(after - before) / Double(before) * 1000).rounded())
  return "(\(tenths < 0 ? "-" : "+")\(abs(tenths) / 10).\(abs(tenths) % 10) %)"
}

/// Libraries for LD_PRELOAD.
enum Preload {
  /// Whether the server of this build can have libraries preloaded: a sanitizer's runtime must come first itself.
  static let isPossible = Patience.sanitizer == nil

  /// The environment in which system calls fail as `faults` says; see scripts/faults.c.
  static func faults(_ faults: String) throws -> [String: String?] {
    ["LD_PRELOAD": try library.get(), "MOONPORT_FAULTS": faults]
  }

  /// scripts/faults.c, compiled once for this run of the tests.
  private static let library = Result { () throws -> String in
    let path = "\(libraryFolder.path)/faults.so"
    let compiler = try ChildProcess(
      Launch("gcc", ["-shared", "-fPIC", "-O2", "-o", path, ProjectFiles.path("scripts/faults.c")]))
    guard try compiler.waitForExit() == .exited(0) else { throw TestFailure("gcc: \(compiler.errors.text)") }
    return path
  }

  private static let libraryFolder = try! TemporaryFolder()  // cannot fail: a machine without /tmp runs no test at all

  /// faketime(1)'s library, with a clock that `file` sets; nil where Debian's `faketime` is not installed.
  static func fakeClock(_ file: String) -> [String: String?]? {
    let folders = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib"]
    let paths = folders.map { folder -> String in "\(folder)/faketime/libfaketimeMT.so.1" }
    guard let path = paths.first(where: { path in access(path, R_OK) == 0 }) else { return nil }
    // As when an administrator sets the clock: the monotonic one does not move.
    return [
      "LD_PRELOAD": path, "FAKETIME_TIMESTAMP_FILE": file, "FAKETIME_NO_CACHE": "1",
      "FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1", "FAKETIME_FORCE_MONOTONIC_FIX": "0",
    ]
  }
}

/// Lets this process open as many descriptors as the system allows; how many.
func raiseDescriptorLimit() -> Int {
  var limit = rlimit()
  getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
  limit.rlim_cur = limit.rlim_max
  setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
  return Int(clamping: limit.rlim_cur)
}
