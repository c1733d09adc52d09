// Reload under load: what clients that never pause see of many reloads.
//
// CI-sized by default; MOONPORT_LONG=1 runs 200 clients and 200 reloads and prints the delays.

import Glibc
import Synchronization
import TestSupport
import Testing

@Suite(.serialized) struct ReloadUnderLoadTests {
  @Test("clients that send without pause are all answered once, in order, and never by older code after newer code")
  func underLoad() throws {
    let reloads = isLongRun ? 200 : 40
    let server = try MoonportProcess(serving: Self.counting(1))
    let crowd = Crowd()
    let clients = TestThread {
      try inParallel(isLongRun ? 200 : 50, timeout: Patience.scaled(300)) { try crowd.run(server, number: $0) }
    }
    try eventually("all clients are at work") { crowd.started.load(ordering: .relaxed) >= (isLongRun ? 200 : 50) }
    try crowd.waitForAnswers(isLongRun ? 20_000 : 2_000)
    let quiet = crowd.takeLongestDelay()

    for number in 1...reloads {
      let before = crowd.answers.load(ordering: .relaxed)
      try server.reload(Self.counting(number + 1))
      try crowd.waitForAnswers(before + 100)
    }

    crowd.isOver.store(true, ordering: .relaxed)
    try clients.join(timeout: Patience.scaled(300))
    #expect(crowd.newest.load(ordering: .relaxed) == reloads + 1)
    let status = try server.status()
    #expect(status["generation"].integer == reloads + 1)
    #expect(status["errors"].integer == 0)
    #expect(status["messages_in"].integer == crowd.answers.load(ordering: .relaxed))
    if isLongRun {
      print(
        "\(reloads) reloads, \(crowd.answers.load(ordering: .relaxed)) answers; longest wait for an answer without"
          + " reloads \(quiet / 1_000_000) ms, with reloads \(crowd.takeLongestDelay() / 1_000_000) ms")
    }
  }

  /// Answers each line with its number, the connection's count so far, the generation, and whether the code is of the odd
  /// or of the even version.
  private static func counting(_ number: Int) -> String {
    script(
      number % 2 == 0 ? "even" : "odd",
      """
      function handlers.on_message(conn, text)
        local ctx = conn.ctx
        ctx.count = (ctx.count or 0) + 1
        conn:send(text, " ", ctx.count, " ", moonport.generation, " ", handlers.version)
      end
      """)
  }
}

/// The clients of one server, and what they have seen together.
private final class Crowd: Sendable {
  /// The newest generation that any client has had an answer of.
  let newest = Atomic<Int>(1)
  let answers = Atomic<Int>(0)
  let started = Atomic<Int>(0)
  let isOver = Atomic<Bool>(false)
  private let longestDelay = Atomic<Int>(0)

  /// One request that is not answered yet.
  private struct Request {
    let number: Int
    /// The newest generation that anybody had an answer of when it was sent.
    let floor: Int
    let sentAt: Int
  }

  /// Sends numbered requests and checks the answers until all are told to stop; every other client has several on their way.
  func run(_ server: MoonportProcess, number: Int) throws {
    let client = try server.connect()
    client.setNoDelay()
    let ahead = number % 2 == 0 ? 1 : 4
    var waiting: [Request] = []
    var sent = 0
    var answered = 0
    while true {
      while waiting.count < ahead, !isOver.load(ordering: .relaxed) {
        sent += 1
        waiting.append(Request(number: sent, floor: newest.load(ordering: .sequentiallyConsistent), sentAt: clock()))
        try client.send("\(sent)\n")
      }
      if waiting.isEmpty { return }
      answered += 1
      try check(client.receiveLine(), waiting.removeFirst(), answered)
      if answered == 1 { started.add(1, ordering: .relaxed) }
    }
  }

  private func check(_ line: String, _ request: Request, _ count: Int) throws {
    longestDelay.max(clock() - request.sentAt, ordering: .relaxed)
    let parts = line.split(separator: " ")
    guard parts.count == 4, let generation = Int(parts[2]), parts[0] == "\(request.number)", parts[1] == "\(count)",
      parts[3] == (generation % 2 == 0 ? "even" : "odd")
    else { throw TestFailure("request \(request.number), the client's number \(count), was answered \"\(line)\"") }
    guard generation >= request.floor else {
      throw TestFailure("generation \(generation) answered after \(request.floor) had: \(line)")
    }
    newest.max(generation, ordering: .sequentiallyConsistent)
    answers.add(1, ordering: .relaxed)
  }

  func waitForAnswers(_ count: Int) throws {
    try eventually("\(count) answers came") { answers.load(ordering: .relaxed) >= count }
  }

  /// The longest time between a request and its answer since the last call, in nanoseconds.
  func takeLongestDelay() -> Int { longestDelay.exchange(0, ordering: .relaxed) }

  private func clock() -> Int {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return time.tv_sec * 1_000_000_000 + time.tv_nsec
  }
}
