// Compiles the echo server of docs/COMPLETION-IO.md against this build's own module and objects, and talks to it.

import CompletionIO
import Foundation
import Glibc
import Testing

/// The documented program, built in a folder of its own.
private final class DocumentedEcho {
  let folder: String
  let source: String

  var program: String { folder + "/echo" }

  init() throws {
    let root = String(#filePath.dropLast("/Tests/CompletionIOTests/DocumentedEchoTests.swift".count))
    let page = try String(contentsOfFile: root + "/docs/COMPLETION-IO.md", encoding: .utf8)
    let blocks = page.components(separatedBy: "\n```swift\n").dropFirst()
    try #require(blocks.count == 1)
    source = try #require(blocks.first?.components(separatedBy: "\n```").first)
    folder = temporaryFolder()
    try source.write(toFile: folder + "/main.swift", atomically: true, encoding: .utf8)
    try compile(root: root)
  }

  deinit { try? FileManager.default.removeItem(atPath: folder) }

  /// Runs the compiler with what the package's build left beside this test program.
  private func compile(root: String) throws {
    let build = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath().deletingLastPathComponent().path
    let system = build + "/../../checkouts/swift-system/Sources/CSystem/include/module.modulemap"
    var arguments = ["swiftc", "-swift-version", "6", folder + "/main.swift", "-o", program, "-I", build + "/Modules"]
    for map in [build + "/CLinux.build/module.modulemap", system] { arguments += ["-Xcc", "-fmodule-map-file=" + map] }
    for sanitizer in sanitizers { arguments.append("-sanitize=" + sanitizer) }
    // Objects of files that are gone may still lie there, so the sources say which to take.
    for file in try FileManager.default.contentsOfDirectory(atPath: root + "/Sources/CompletionIO") {
      arguments.append("\(build)/CompletionIO.build/\(file).o")
    }
    for target in ["CLinux", "SystemPackage", "CSystem"] {
      let objects = try FileManager.default.subpathsOfDirectory(atPath: "\(build)/\(target).build")
      arguments += objects.filter { $0.hasSuffix(".o") }.map { "\(build)/\(target).build/\($0)" }
    }
    let output = Pipe()
    let compiler = Process()
    compiler.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    compiler.arguments = arguments
    compiler.standardError = output
    try compiler.run()
    let messages = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    compiler.waitUntilExit()
    try #require(compiler.terminationStatus == 0, "\(messages)")
    #expect(!messages.contains("warning:"), "\(messages)")
  }

  /// Starts it, under `tool` if one is given, and returns its address once it accepts. Only SIGKILL ends it for sure: test
  /// threads block the other signals, and a child inherits that.
  func start(under tool: [String] = []) throws -> (process: Process, address: SocketAddress) {
    let address = try SocketAddress(parsing: "unix:\(folder)/socket\(tool.count)")
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments = tool + [program, address.description]
    process.standardOutput = FileHandle.nullDevice
    try process.run()
    let isUp = eventually { (try? Peer(to: address)) != nil || !process.isRunning }
    try #require(isUp && process.isRunning)
    return (process, address)
  }
}

/// The sanitizers that this test program itself was built with.
private var sanitizers: [String] {
  [("address", "__asan_init"), ("thread", "__tsan_init")].filter { dlsym(nil, $0.1) != nil }.map(\.0)
}

/// Whether system calls can be traced here.
private let canTrace: Bool = {
  guard sanitizers.isEmpty else { return false }
  let probe = Process()
  probe.executableURL = URL(fileURLWithPath: "/usr/bin/env")
  probe.arguments = ["strace", "-o", "/dev/null", "true"]
  probe.standardError = FileHandle.nullDevice
  guard (try? probe.run()) != nil else { return false }
  probe.waitUntilExit()
  return probe.terminationStatus == 0
}()

@Suite("The documented echo server")
struct DocumentedEchoTests {
  @Test("is shorter than 60 lines, compiles without a warning, and gives every byte back in order")
  func echoes() throws {
    let echo = try DocumentedEcho()
    #expect(echo.source.split(separator: "\n", omittingEmptySubsequences: false).count < 60)
    let (server, address) = try echo.start()
    defer { kill(server.processIdentifier, SIGKILL) }

    // Small messages of many clients, taking turns.
    let peers = try (0..<20).map { _ in try Peer(to: address) }
    for round in 0..<50 {
      for (index, peer) in peers.enumerated() { peer.send("client \(index) round \(round)\n") }
      for (index, peer) in peers.enumerated() {
        let expected = "client \(index) round \(round)\n"
        #expect(peer.receive(exactly: expected.utf8.count) == Array(expected.utf8))
      }
    }

    // A client that sends far more than the buffers hold before it reads, and ends its side.
    let bytes = (0..<8_000_000).map { UInt8(truncatingIfNeeded: $0 &* 13 &+ $0 >> 10) }
    let large = try Peer(to: address)
    nonisolated(unsafe) let sender = large
    let thread = CompletionIO.Thread.start(name: "sender") {
      sender.send(bytes)
      sender.shutdownWrite()
    }
    // While that one does not read, the others are served.
    peers[0].send("still there?")
    #expect(peers[0].receive(exactly: 12) == Array("still there?".utf8))
    #expect(large.receive(exactly: bytes.count + 1) == bytes)
    thread.join()

    // Clients that go away in the middle do not end it.
    for peer in peers.dropFirst() {
      peer.send("unread")
      peer.close()
    }
    peers[0].send("and now?")
    #expect(peers[0].receive(exactly: 8) == Array("and now?".utf8))
    #expect(server.isRunning)
  }

  @Test(
    "costs one recv, one send and one wait per message, and no other system call",
    .enabled(if: canTrace, "system calls cannot be traced here"))
  func systemCalls() throws {
    let echo = try DocumentedEcho()
    let trace = echo.folder + "/trace"
    let (tracer, address) = try echo.start(under: ["strace", "-f", "-o", trace])
    let peer = try Peer(to: address)
    let messages = 1000
    for _ in 0..<messages {
      peer.send("message\n")
      #expect(peer.receive(exactly: 8).count == 8)
    }
    let children = try String(
      contentsOfFile: "/proc/\(tracer.processIdentifier)/task/\(tracer.processIdentifier)/children", encoding: .utf8)
    for child in children.split(separator: " ") { kill(try #require(pid_t(child)), SIGKILL) }
    tracer.waitUntilExit()

    var calls: [Substring: Int] = [:]
    let lines = try String(contentsOfFile: trace, encoding: .utf8).split(separator: "\n")
    let serving = lines.drop { !$0.contains("accept4(") }
    for line in serving {
      guard let name = line.split(separator: " ").dropFirst().first?.split(separator: "(").first else { continue }
      calls[name, default: 0] += 1
    }
    let reads = calls["recvfrom", default: 0]
    let waits = calls["epoll_wait", default: 0] + calls["epoll_pwait2", default: 0]
    #expect(reads >= messages && reads <= messages + 5, "\(calls)")
    #expect(calls["sendto"] == messages, "\(calls)")
    #expect(waits >= messages - 10 && waits <= messages + 10, "\(calls)")
    // What is left belongs to connecting: accept, registering, closing the first probe, the final signal.
    #expect(calls.values.reduce(0, +) - reads - messages - waits < 50, "\(calls)")
    print("system calls for \(messages) echoes: \(calls)")
  }
}
