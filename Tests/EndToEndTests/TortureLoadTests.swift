// Many clients at once that do little, too much, or nothing. The short form has a tenth of the clients; MOONPORT_LONG=1 has all.
//
// Must never know: anything but the program's command line, its streams and its sockets.

import Glibc
import TestSupport
import Testing

@Suite(.serialized) struct TortureLoadTests {
  @Test func `thousands of idle connections and constant churn: all idle ones are still served`() throws {
    let available = raiseDescriptorLimit()
    // This process needs one for each as well.
    let idleCount = min(isLongRun ? 15_000 : 1_500, available - 2_000)
    let seconds = isLongRun ? 20.0 : 2.0
    let server = try MoonportProcess.serving("function h.on_message(conn, text) conn:send(text) end", workers: 2)
    try Siege(name: "idle connections and churn", server: server).withstand {
      let idle = try (0..<idleCount).map { _ in try server.connect() }
      let churned = Tally()
      let end = Deadline(seconds: seconds)
      try inParallel(3, timeout: Patience.scaled(120)) { thread in
        while !end.hasPassed {
          let client = try server.connect()
          if try client.ask("x") != "x" { throw TestFailure("another answer") }
          if thread == 0 { client.reset() }
          churned.add(1)
        }
      }
      for index in stride(from: 0, to: idleCount, by: 50) { #expect(try idle[index].ask("\(index)") == "\(index)") }
      return "\(idleCount) idle, \(churned.value) came and went, the idle ones are served"
    }
  }

  @Test func `subscribers that never read are cut off under 1 MB/s of broadcast; readers lose nothing`() throws {
    let (deafCount, readerCount, seconds) = isLongRun ? (500, 50, 10) : (60, 8, 2)
    // 100 messages of 10 kB in a second; of 20 kB in the short form, since the kernel takes up to 3 MB for each client.
    let server = try MoonportProcess.serving(
      """
      local padding = (" "):rep(\(isLongRun ? 10_000 : 20_000))
      function h.on_open(conn) conn:join("feed") end
      function h.on_message(conn, text)
        for number = 1, tonumber(text) do
          moonport.broadcast(("%08d"):format(number) .. padding, { room = "feed" })
          sleep(0.01)
        end
      end
      """, "codec = 'line', output_limit = { hard = 262144, soft = 131072, soft_seconds = 1 }", workers: 2)
    try Siege(name: "never-readers under 1 MB/s of broadcast", server: server).withstand {
      let before = try server.status()["refused"]["output_limit"].integer ?? 0
      let deaf = try (0..<deafCount).map { _ in try TestClient(server.address, receiveBufferBytes: 4096) }
      let readers = try (0..<readerCount).map { _ in try server.connect() }
      try eventually("all are there") {
        try server.status()["connections"].integer == deafCount + readerCount
      }
      let starter = try server.connect()
      try starter.send("\(seconds * 100)\n")
      starter.close()
      try inParallel(readerCount, timeout: Patience.scaled(120)) { index in
        for number in 1...seconds * 100 {
          let line = try readers[index].receiveLine()
          if Int(line.prefix(8)) != number { throw TestFailure("reader \(index) got \(line.prefix(8)) for \(number)") }
        }
      }
      // The kernel's own buffers take some of it before the server's limit is reached.
      try eventually("the others were cut off") {
        try (server.status()["refused"]["output_limit"].integer ?? 0) == before + deafCount
      }
      for client in deaf { client.close() }
      return "\(deafCount) of \(deafCount) cut off, \(readerCount) readers got \(seconds * 100) of \(seconds * 100)"
    }
  }

  @Test func `clients that send a byte now and then are cut off by the timeouts; others notice nothing`() throws {
    let count = isLongRun ? 2_000 : 200
    let interval: UInt32 = isLongRun ? 1_000_000 : 100_000
    _ = raiseDescriptorLimit()
    let server = try MoonportProcess(
      script: """
        local moonport = require 'moonport'
        moonport.listen { address = '127.0.0.1:0', codec = 'line', idle_timeout = \(isLongRun ? 5 : 0.5) }
        moonport.listen { address = '127.0.0.1:0', codec = { type = 'length', size = 4 }, message_timeout = \(isLongRun ? 5 : 0.5) }
        return { on_message = function(conn, text) conn:send(text) end }
        """
    ) {
      $0.listeners = 2
      $0.workers = 2
    }
    try Siege(name: "one byte per second", server: server).withstand {
      let drips = try (0..<count).map { try server.connect(listener: $0 % 2) }
      var rounds = 0
      try eventually("all were cut off", timeout: Patience.scaled(60)) {
        // The first four are a length of 100.
        for drip in drips { _ = try? drip.trySend([rounds < 3 ? 0 : 100]) }
        rounds += 1
        #expect(try server.connect().ask("calm") == "calm")
        usleep(interval)
        return try server.status()["connections"].integer ?? count == 0
      }
      for drip in drips { #expect((try? drip.waitForEnd()) != nil) }
      return "\(count) of \(count) cut off after \(rounds) bytes each"
    }
  }

  @Test func `clients over their rates are held back or cut off; a client within them notices nothing`() throws {
    let server = try MoonportProcess(
      script: """
        local moonport = require 'moonport'
        local echo = { on_message = function(conn, text) conn:send(text) end }
        moonport.listen { address = '127.0.0.1:0', codec = 'line', message_rate = 100 }
        moonport.listen { address = '127.0.0.1:0', codec = 'line', message_rate = { per_second = 100, policy = 'close' } }
        moonport.listen { address = '127.0.0.1:0', codec = 'line', connection_rate = 50 }
        return echo
        """
    ) {
      $0.listeners = 3
      $0.workers = 2
    }
    let flood = [UInt8](repeating: 10, count: 10_000)
    try Siege(name: "message and connection rates", server: server).withstand {
      let held = try (0..<20).map { _ in try server.connect(listener: 0) }
      let cut = try (0..<20).map { _ in try server.connect(listener: 1) }
      for client in held + cut { _ = try client.trySend(flood) }
      for client in cut { #expect((try? client.waitForEnd()) != nil) }
      let calm = try server.connect(listener: 0)
      for _ in 0..<20 { #expect(try calm.ask("calm") == "calm") }
      var turnedAway = 0
      for _ in 0..<500 where (try? server.connect(listener: 2).ask("x")) != "x" { turnedAway += 1 }
      #expect(turnedAway > 0)
      for client in held { client.reset() }
      return "20 held, 20 of 20 cut off, \(turnedAway) of 500 turned away"
    }
  }
}

/// A count that several threads add to.
private final class Tally: @unchecked Sendable {
  private let lock = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
  private var count = 0

  init() { pthread_mutex_init(lock, nil) }

  deinit {
    pthread_mutex_destroy(lock)
    lock.deallocate()
  }

  func add(_ amount: Int) {
    pthread_mutex_lock(lock)
    count += amount
    pthread_mutex_unlock(lock)
  }

  var value: Int {
    pthread_mutex_lock(lock)
    defer { pthread_mutex_unlock(lock) }
    return count
  }
}
