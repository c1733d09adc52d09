// Ten thousand clients whose handlers sleep: what each of them costs, and that the others do not notice.
//
// Must never know: how a handler is suspended.

import Glibc
import TestSupport
import Testing

@Suite(.serialized) struct SleeperTests {
  private static let script = """
    function h.on_message(conn, text)
      if text == "sleep" then
        conn:send("sleeping")
        sleep(1000000)
      elseif text == "collect" then
        collectgarbage()
        collectgarbage()
      end
      conn:send(text)
    end
    """

  /// As many clients as this process may have beside its other descriptors, at most 10,000.
  private static func clientsMax() -> Int {
    var limit = rlimit()
    _ = getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    limit.rlim_cur = limit.rlim_max
    _ = setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    return min(10_000, Int(min(limit.rlim_cur, 1 << 20)) / 2 - 500)
  }

  /// CPU time of the server for `count` echoes.
  private func echoSeconds(_ count: Int, _ client: TestClient, _ server: MoonportProcess) throws -> Double {
    let before = try server.processorSeconds()
    for _ in 0..<count { _ = try client.ask("x") }
    return try server.processorSeconds() - before
  }

  @Test func `a sleeping handler costs less than 2.5 KB, and another client's echo no more than before`() throws {
    let server = try MoonportProcess.serving(Self.script)
    let count = Self.clientsMax()
    try #require(count >= 1_000, "too few descriptors for this test")
    let clients = try (0..<count).map { _ in try server.connect() }
    for client in clients { #expect(try client.ask("x") == "x") }
    let other = try server.connect()
    _ = try other.ask("collect")
    let resident = try server.residentBytes()
    var idle = try echoSeconds(4_000, other, server)

    for client in clients { #expect(try client.ask("sleep") == "sleeping") }
    let growth = try (server.residentBytes() - resident) / count
    #expect(growth < 2_500, "each of \(count) sleepers took \(growth) bytes")
    #expect(growth > 100, "nobody sleeps")

    // The best of a few measurements each: other processes' noise only adds.
    var sleeping = try echoSeconds(4_000, other, server)
    for _ in 0..<4 where sleeping > idle * 1.5 + 0.02 {
      sleeping = min(sleeping, try echoSeconds(4_000, other, server))
    }
    idle = max(idle, 0.01)
    #expect(
      sleeping < idle * 1.5 + 0.02,
      "an echo took \(idle / 4_000) s of CPU before, \(sleeping / 4_000) s beside sleepers")
    withExtendedLifetime(clients) {}
  }
}
