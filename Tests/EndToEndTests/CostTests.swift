// What a message costs once all is warm: heap allocations and system calls, counted and not timed, so that a rise fails on any machine.
// Of the release build, since the debug build allocates where the optimised one does not: `scripts/test --only cost`.
//
// Must never know: how the server does it.

import Glibc
import TestSupport
import Testing

@Suite(
  .enabled(if: getenv("MOONPORT_COSTS") != nil, "costs are those of the release build: scripts/test --only cost"),
  .serialized)
struct CostTests {
  /// One way to use the server: what a client sends, and who gets how many of what.
  struct Conversation: Sendable, CustomTestStringConvertible {
    let name: String
    let script: String
    /// What is put around each message; its size is that of the length codec's field.
    var codec = "line"
    /// Clients that only receive. With any, the sender gets nothing back.
    var listeners = 0
    /// Memory of Lua for a message: its string, of 64 bytes, an end and a header of 24, in a block of its size.
    var luaBytesMax = 100

    var testDescription: String { name }
    var receivers: Int { max(listeners, 1) }

    /// 64 bytes, so that Lua makes a string of each: short ones it keeps and finds again.
    func message(_ number: Int) -> [UInt8] {
      let text = Array("message \(number)".utf8)
      let payload = text + [UInt8](repeating: UInt8(ascii: "x"), count: 64 - text.count)
      return codec == "line" ? payload + [UInt8(ascii: "\n")] : [0, 0, 0, 64] + payload
    }
  }

  static let conversations = [
    Conversation(
      name: "echo", script: "return { on_message = function(conn, text) conn:send(text) end }"),
    Conversation(
      name: "length codec", script: "return { on_message = function(conn, text) conn:send(text) end }",
      codec: "{ type = 'length', size = 4 }"),
    Conversation(
      name: "broadcast",
      script: """
        local to_room = { room = "all" }
        return { on_message = function(conn, text)
          if text == "join" then conn:join("all") return conn:send("joined") end
          moonport.broadcast(text, to_room)
        end }
        """, listeners: 5),
    Conversation(
      name: "receive in a loop",
      script: """
        return { on_open = function(conn)
          while true do
            local text = conn:receive()
            if not text then return end
            conn:send(text)
          end
        end }
        """),
    Conversation(
      name: "messages()",
      script: "return { on_open = function(conn) for text in conn:messages() do conn:send(text) end end }"),
  ]

  private static let batch = 20
  /// What is not the messages' own (a pool that grows, a table of Lua's that is resized) is over by then.
  private static let warmUpBatches = 200
  private static let batches = 500

  @Test(arguments: conversations) func `nothing is allocated for a message by Swift, and its string by Lua`(
    conversation: Conversation
  ) throws {
    let folder = try TemporaryFolder()
    let counts = try AllocationCounts(folder: folder)
    let talk = try Talk(conversation, folder: folder, environment: counts.environment)
    try talk.exchange(batches: CostTests.warmUpBatches)
    let bytesBefore = try talk.luaBytes()
    let before = try counts.read()
    try talk.exchange(batches: CostTests.batches)
    let after = try counts.read()
    let bytes = try talk.luaBytes() - bytesBefore
    let messages = CostTests.batches * CostTests.batch
    #expect(after.swift - before.swift == 0, "\(after.swift - before.swift) for \(messages) messages")
    // Lua keeps small blocks for reuse, so that its calls of malloc say little; the bytes it took say it all.
    #expect(bytes <= conversation.luaBytesMax * messages, "\(bytes / messages) bytes of Lua's for a message")
    // Without these, a library that counts nothing or a collector that runs would pass.
    #expect(before.swift > 0 && before.lua > 0, "\(before) since the start: is anything counted?")
    #expect(bytes >= 64 * messages, "\(bytes / messages) bytes of Lua's for a message: is it collected meanwhile?")
  }

  @Test(arguments: conversations) func `a batch costs one recv, one send for each receiver, and no epoll_ctl`(
    conversation: Conversation
  ) throws {
    let folder = try TemporaryFolder()
    let talk = try Talk(conversation, folder: folder, environment: [:])
    try talk.exchange(batches: 10)
    let calls = try SystemCalls.during(of: talk.server, folder: folder) {
      try talk.exchange(batches: CostTests.batches)
    }
    #expect(calls["recvfrom"] == CostTests.batches, "\(calls)")
    let sends = ["sendto", "sendmsg", "write", "writev"].reduce(0) { $0 + calls[$1, default: 0] }
    #expect(sends == CostTests.batches * conversation.receivers, "\(calls)")
    #expect(calls["epoll_ctl", default: 0] == 0, "\(calls)")
    // Each batch may be waited for twice, and a thread of the server's own may look after something meanwhile.
    let waits = calls["epoll_wait", default: 0] + calls["epoll_pwait2", default: 0] + calls["epoll_pwait", default: 0]
    #expect(waits <= 2 * CostTests.batches + 20, "\(calls)")
    // The heap grows and shrinks with what Lua takes and collects, by mprotect; nothing else is called but now and then.
    let others = calls.values.reduce(0, +) - CostTests.batches - sends - waits - calls["mprotect", default: 0]
    #expect(others <= CostTests.batches / 20, "\(calls)")
  }

  /// A server, one sender and its listeners.
  private struct Talk {
    let server: MoonportProcess
    private let conversation: Conversation
    private let sender: TestClient
    private let counter: TestClient
    private let listeners: [TestClient]

    init(_ conversation: Conversation, folder: TemporaryFolder, environment: [String: String?]) throws {
      self.conversation = conversation
      let head = """
        local moonport = require "moonport"
        -- The next collection comes when ten times what there is now has been taken.
        ballast = string.rep("x", 1 << 20)
        collectgarbage("incremental", 1000, 100)
        collectgarbage()
        moonport.listen { address = "127.0.0.1:0", codec = \(conversation.codec == "line" ? "'line'" : conversation.codec) }
        moonport.listen { address = "127.0.0.1:0", codec = "line", handler = { on_message = function(conn)
          conn:send(string.format("%d", collectgarbage("count") * 1024))
        end } }

        """
      server = try MoonportProcess(script: head + conversation.script, folder: folder) {
        $0.workers = 1
        $0.listeners = 2
        $0.environment = environment
      }
      counter = try server.connect(listener: 1)
      sender = try server.connect()
      listeners = try (0..<conversation.listeners).map { [server] _ in
        let client = try server.connect()
        guard try client.ask("join") == "joined" else { throw TestFailure("a listener could not join") }
        return client
      }
    }

    /// Memory that Lua has taken; none is collected.
    func luaBytes() throws -> Int {
      let line = try counter.ask("count")
      guard let bytes = Int(line) else { throw TestFailure("the server counts \(line)") }
      return bytes
    }

    /// Sends batches, each in one piece, and waits until every receiver has all of each.
    func exchange(batches: Int) throws {
      for number in 0..<batches {
        let messages = (0..<CostTests.batch).flatMap { conversation.message(number * CostTests.batch + $0) }
        try sender.send(messages)
        for receiver in listeners.isEmpty ? [sender] : listeners {
          #expect(try receiver.receive(exactly: messages.count) == messages)
        }
      }
    }
  }
}
