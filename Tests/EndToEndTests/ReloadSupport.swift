// What the tests of live reload share: scripts that tell their version, and the control commands as functions.
//
// Must never know: which test uses it.

import Glibc
import TestSupport
import Testing

/// A script whose answer to a line is `VERSION LINE`; `body` goes between its head and its end, from line 4 on.
func script(_ version: String, codec: String = "\"line\"", _ body: String = "") -> String {
  """
  local moonport = require "moonport"
  moonport.listen { address = "127.0.0.1:0", codec = \(codec) }
  local handlers = { version = "\(version)" }
  \(body)
  handlers.on_message = handlers.on_message or function(conn, text) conn:send("\(version) " .. text) end
  return handlers

  """
}

extension MoonportProcess {
  /// A server whose listeners are those of the script.
  convenience init(serving text: String, workers: Int = 4, listeners: Int = 1, _ arguments: [String] = []) throws {
    try self.init(script: text) {
      $0.workers = workers
      $0.listeners = listeners
      $0.arguments = arguments
    }
  }

  /// Replaces the script's file in one step.
  func replaceScript(_ text: String) throws { try folder.replace("main.lua", text) }

  /// Runs a control command that must end with status 0; its output.
  @discardableResult
  func done(_ command: String, _ arguments: String...) throws -> String {
    let result = try MoonportProcess.runTool([command, "--admin", adminPath] + arguments)
    guard result.status == .exited(0) else { throw TestFailure("\(command): \(result)\n\(child.transcript)") }
    return result.output
  }

  /// Runs a control command that must end with status 1; what it wrote on standard error.
  func refused(_ command: String, _ arguments: String...) throws -> String {
    let result = try MoonportProcess.runTool([command, "--admin", adminPath] + arguments)
    guard result.status == .exited(1), result.output.isEmpty else { throw TestFailure("\(command): \(result)") }
    return result.errors
  }

  /// Replaces the script and reloads; the reload must succeed.
  func reload(_ text: String) throws {
    try replaceScript(text)
    try done("reload")
  }

  /// What `status --json` tells.
  func status() throws -> JSON { try JSON(parsing: done("status", "--json")) }

  /// Connected clients, dealt out evenly: each goes to the worker with the fewest.
  func connect(_ count: Int) throws -> [TestClient] { try (0..<count).map { _ in try connect() } }
}

extension TestClient {
  /// Sends a line and returns the next line that comes.
  func ask(_ line: String) throws -> String {
    try send(line + "\n")
    return try receiveLine()
  }
}

/// Whether the full sizes are asked for: `MOONPORT_LONG=1`.
let isLongRun = getenv("MOONPORT_LONG") != nil

/// A flag that one thread raises and another looks at.
final class Flag: @unchecked Sendable {
  private let lock = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
  private var value = false

  init() { pthread_mutex_init(lock, nil) }

  deinit {
    pthread_mutex_destroy(lock)
    lock.deallocate()
  }

  func raise() {
    pthread_mutex_lock(lock)
    value = true
    pthread_mutex_unlock(lock)
  }

  var isRaised: Bool {
    pthread_mutex_lock(lock)
    defer { pthread_mutex_unlock(lock) }
    return value
  }
}
