// Compiles the echo server of docs/COMPLETION-IO.md against this build's own module and objects, and talks to it.

import CompletionIO
import Glibc
import SystemPackage
import Testing

/// The documented program, built in a folder of its own.
private final class DocumentedEcho {
  let folder: String
  let source: String

  var program: String { folder + "/echo" }

  init() throws {
    let root = String(#filePath.dropLast("/Tests/CompletionIOTests/DocumentedEchoTests.swift".count))
    let lines = try contents(of: root + "/docs/COMPLETION-IO.md").split(
      separator: "\n", omittingEmptySubsequences: false)
    try #require(lines.count(where: { $0 == "```swift" }) == 1)
    source = lines.drop { $0 != "```swift" }.dropFirst().prefix { $0 != "```" }.joined(separator: "\n")
    folder = temporaryFolder()
    let file = try FileDescriptor.open(
      folder + "/main.swift", .writeOnly, options: .create, permissions: .ownerReadWrite)
    try file.closeAfter { _ = try file.writeAll(source.utf8) }
    try compile(root: root)
  }

  deinit { remove(folder: folder) }

  /// Runs the compiler with what the package's build left beside this test program.
  private func compile(root: String) throws {
    var path = [UInt8](repeating: 0, count: 4096)
    let count = path.withUnsafeMutableBytes { readlink("/proc/self/exe", $0.baseAddress!, $0.count) }
    let build = FilePath(String(decoding: path.prefix(count), as: UTF8.self)).removingLastComponent().string
    let system = build + "/../../checkouts/swift-system/Sources/CSystem/include/module.modulemap"
    var arguments = ["swiftc", "-swift-version", "6", folder + "/main.swift", "-o", program, "-I", build + "/Modules"]
    for map in [build + "/CLinux.build/module.modulemap", system] { arguments += ["-Xcc", "-fmodule-map-file=" + map] }
    for sanitizer in sanitizers { arguments.append("-sanitize=" + sanitizer) }
    // Objects of files that are gone may still lie there, so the sources say which to take.
    for file in names(in: root + "/Sources/CompletionIO") { arguments.append("\(build)/CompletionIO.build/\(file).o") }
    for target in ["CLinux", "SystemPackage", "CSystem"].map({ "\(build)/\($0).build" }) {
      arguments += names(in: target).filter { $0.hasSuffix(".o") }.map { "\(target)/\($0)" }
    }
    let status = try Child(arguments, output: folder + "/messages").wait()
    let messages = try contents(of: folder + "/messages")
    try #require(status == 0, "\(messages)")
    #expect(!messages.contains("main.swift:"), "\(messages)")
  }

  /// Starts it, under `tool` if one is given, and returns its address once it accepts.
  func start(under tool: [String] = []) throws -> (child: Child, address: SocketAddress) {
    let address = try SocketAddress(parsing: "unix:\(folder)/socket")
    let child = try Child(tool + [program, address.description])
    try #require(eventually { (try? Peer(to: address)) != nil })
    return (child, address)
  }
}

/// The sanitizers that this test program itself was built with.
private var sanitizers: [String] {
  [("address", "__asan_init"), ("thread", "__tsan_init")].filter { dlsym(nil, $0.1) != nil }.map(\.0)
}

/// Whether system calls can be traced here.
private let canTrace = sanitizers.isEmpty && (try? Child(["strace", "-o", "/dev/null", "true"]).wait()) == 0

@Suite("The documented echo server")
struct DocumentedEchoTests {
  @Test("is shorter than 60 lines, compiles without a warning, and gives every byte back in order")
  func echoes() throws {
    let echo = try DocumentedEcho()
    #expect(echo.source.split(separator: "\n", omittingEmptySubsequences: false).count < 60)
    let (server, address) = try echo.start()
    defer { server.kill() }

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
    let thread = Thread.start(name: "sender") {
      large.send(bytes)
      large.shutdownWrite()
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
    // The traced program is the tracer's child; with it the tracer ends.
    let tracerID = tracer.process
    for child in try contents(of: "/proc/\(tracerID)/task/\(tracerID)/children").split(separator: " ") {
      kill(try #require(pid_t(child)), SIGKILL)
    }
    tracer.wait()

    var calls: [Substring: Int] = [:]
    let lines = try contents(of: trace).split(separator: "\n")
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
