import CompletionIO
import Glibc
import LuaRuntime
import Testing

@testable import ScriptServer

@Suite("Pending connects")
struct ConnectsTests {
  private func connect() -> PendingConnect {
    let ticket = WaitTicket(token: .none, number: 0)
    return PendingConnect(ticket: ticket, until: 0, port: 0, codec: 0, handlers: 0)
  }

  @Test("a connect is found by its number and by its present socket, until it is taken out")
  func table() {
    var table = ConnectTable()
    let first = table.insert(connect())
    let second = table.insert(connect())
    #expect(first != second)
    let keys = [HandleKey(slot: 1, generation: 1), HandleKey(slot: 2, generation: 1)]
    table.update(first) { $0.key = keys[0] }
    #expect(table.number(of: keys[0]) == first)
    table.update(first) { $0.key = keys[1] }
    #expect(table.number(of: keys[0]) == nil)
    #expect(table.number(of: keys[1]) == first)
    #expect(Set(table.all) == [first, second])
    #expect(table.remove(first)?.key == keys[1])
    #expect(table.remove(first) == nil)
    #expect(table[first] == nil)
    #expect(table.number(of: keys[1]) == nil)
    #expect(table.insert(connect()) > second, "a number was used again")
  }

  @Test("of several failures the one that tells most counts")
  func failures() {
    let ranked: [ConnectFailure] = [.unreachable, .timeout, .notFound, .forbidden, .tooMany, .refused]
    #expect(ranked.sorted() == ranked)
    #expect(ConnectFailure(errorNumber: ECONNREFUSED) == .refused)
    #expect(ConnectFailure(errorNumber: ETIMEDOUT) == .timeout)
    #expect(ConnectFailure(errorNumber: ENETUNREACH) == .unreachable)
    #expect(ConnectFailure(errorNumber: EHOSTUNREACH) == .unreachable)
    #expect(ConnectFailure(errorNumber: ENOENT) == .notFound)
    #expect(ConnectFailure(errorNumber: EACCES) == .forbidden)
    #expect(ConnectFailure(errorNumber: EMFILE) == .tooMany)
  }
}
