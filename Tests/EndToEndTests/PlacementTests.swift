// Which worker gets a new client, on the built program.
//
// Must never know: anything but the program's command line, its streams and its sockets.

import TestSupport
import Testing

@Suite struct PlacementTests {
  private static let script = """
    function h.on_message(conn, text) conn:send(tostring(moonport.worker.id)) end
    """

  /// Clients, each with the worker that serves it.
  private static func clients(_ server: MoonportProcess, _ count: Int) throws -> [(client: TestClient, worker: String)]
  {
    try (0..<count).map { _ in
      let client = try server.connect()
      return (client, try client.ask("which worker"))
    }
  }

  @Test func `clients that come one after the other are spread evenly over the workers`() throws {
    let server = try MoonportProcess.serving(Self.script, workers: 4)
    let served = try Self.clients(server, 20)
    #expect(Dictionary(grouping: served, by: \.worker).mapValues(\.count) == ["1": 5, "2": 5, "3": 5, "4": 5])
  }

  @Test func `a worker whose clients have left gets the next ones`() throws {
    let server = try MoonportProcess.serving(Self.script, workers: 3)
    let served = try Self.clients(server, 12)
    for (client, worker) in served where worker == "2" { client.close() }
    try eventually("four have left") { try server.status()["connections"].integer == 8 }
    let next = try Self.clients(server, 4)
    #expect(next.map(\.worker) == ["2", "2", "2", "2"])
    withExtendedLifetime(served) {}
  }
}
