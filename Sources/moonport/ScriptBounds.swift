// The options that bound what a script may do while it loads, for `run` and `check` alike. Must never know how the bounds are
// enforced.

import ArgumentParser
import ScriptServer

/// Options of every command that loads a script.
struct ScriptBounds: ParsableArguments {
  /// Budgets that can be asked for, in seconds: from what one look of the watchdog can tell apart to an hour.
  static let budgetSeconds: ClosedRange<Double> = 0.001...3600
  /// Longest limit for what is stuck, in seconds: a day, after which nobody waits for it any more.
  static let stuckLimitSecondsMax: Double = 24 * 3600
  /// The least memory that can be asked for, in bytes: the libraries of Lua and of moonport take about 0.2 MB.
  static let memoryBytesMin = 1 << 20

  @Option(
    help: ArgumentHelp(
      "CPU seconds that a script may take to load, and to hand over its state in a reload.", valueName: "seconds"))
  var loadBudget: Double = 5

  @Option(
    help: ArgumentHelp(
      """
      Seconds that a C function which a script calls may not return, before the server ends with status 70; a script that \
      is only tried is given up. 0 is for ever.
      """, valueName: "seconds"))
  var stuckLimit: Double = 30

  @Option(
    help: ArgumentHelp(
      "Memory of one worker's scripts, in bytes or like 64M or 1G; 0 is no limit. (default: 256M)", valueName: "size"))
  var memoryLimit = MemorySize(bytes: 256 << 20)

  @Option(help: ArgumentHelp("What scripts may use of Lua's libraries: standard or strict.", valueName: "profile"))
  var sandbox = Sandbox.standard

  mutating func validate() throws {
    guard Self.budgetSeconds.contains(loadBudget) else {
      throw ValidationError("--load-budget takes seconds from 0.001 to 3600, not \(loadBudget)")
    }
    guard stuckLimit >= 0, stuckLimit <= Self.stuckLimitSecondsMax else {
      throw ValidationError(
        "--stuck-limit takes seconds from 0 to \(Int(Self.stuckLimitSecondsMax)), not \(stuckLimit)")
    }
    guard memoryLimit.bytes == 0 || memoryLimit.bytes >= Self.memoryBytesMin else {
      throw ValidationError("--memory-limit takes 0 or at least 1M")
    }
  }

  /// Enters them into a configuration.
  func apply(to configuration: inout Configuration) {
    configuration.loadBudgetSeconds = loadBudget
    configuration.stuckLimitSeconds = stuckLimit
    configuration.memoryLimitBytes = memoryLimit.bytes
    configuration.sandbox = sandbox
  }
}

extension Sandbox: ExpressibleByArgument {}

/// A number of bytes, as a person writes it: digits, and K, M or G for powers of 1024.
struct MemorySize: ExpressibleByArgument {
  var bytes: Int

  init(bytes: Int) { self.bytes = bytes }

  init?(argument: String) {
    var digits = Substring(argument)
    var unit = 1
    switch digits.last {
    case "K", "k": unit = 1 << 10
    case "M", "m": unit = 1 << 20
    case "G", "g": unit = 1 << 30
    default: break
    }
    if unit != 1 { digits = digits.dropLast() }
    // 1 TB: no state of Lua gets there.
    guard let number = Int(digits), number >= 0, number <= (1 << 40) / unit else { return nil }
    bytes = number * unit
  }

  var defaultValueDescription: String { "256M" }
}
