// The threads that look names up, with look-ups of the test's own.

import CompletionIO
import Glibc
import Testing

@testable import ScriptServer

@Suite("Looking names up")
struct ResolverTests {
  private let port: CompletionPort
  private let mailbox: Mailbox<WorkerMessage>
  private static let never = UInt64.max

  init() throws {
    port = try CompletionPort()
    mailbox = Mailbox(port: port)
  }

  /// Look-ups that wait until they are let go; the names begun, in order.
  private final class Gate: @unchecked Sendable {
    private let condition = ThreadCondition()
    private var isOpen = false
    private var begun: [String] = []

    func pass(_ name: String) -> LookupResult {
      condition.withLock {
        begun.append(name)
        condition.broadcast()
        while !isOpen { condition.wait() }
      }
      return .success([SocketAddress(host: "127.0.0.1", port: 0)!])
    }

    func open() {
      condition.withLock {
        isOpen = true
        condition.broadcast()
      }
    }

    func waitUntilBegun(_ count: Int) {
      condition.withLock { while begun.count < count { condition.wait() } }
    }

    var names: [String] { condition.withLock { begun } }
  }

  /// The numbers of the connects that were answered, once there are `count`.
  private func answered(_ count: Int) -> [ConnectNumber] {
    var numbers: [ConnectNumber] = []
    while numbers.count < count {
      var messages: [WorkerMessage] = []
      _ = unsafe port.dequeue(timeoutNanoseconds: 1_000_000_000)
      mailbox.drain(into: &messages)
      for message in messages { if case .resolved(.connect(let number), _) = message { numbers.append(number) } }
    }
    return numbers
  }

  private func ask(_ resolver: Resolver, _ name: String, _ number: ConnectNumber, until: UInt64 = never) -> Bool {
    resolver.lookUp(name, for: .connect(number), until: until, answerTo: mailbox)
  }

  @Test("questions for one name share a look-up, and each is answered")
  func shared() {
    let gate = Gate()
    let resolver = Resolver { gate.pass($0) }
    for number in 1...5 { #expect(ask(resolver, "name", ConnectNumber(number))) }
    gate.open()
    #expect(answered(5).sorted() == [1, 2, 3, 4, 5])
    #expect(gate.names == ["name"])
    resolver.end()
  }

  @Test("look-ups that hang take all threads, then a bounded number waits, and the rest is refused")
  func bounded() {
    let gate = Gate()
    let resolver = Resolver { gate.pass($0) }
    for number in 0..<Resolver.threadsMax { #expect(ask(resolver, "hangs\(number)", ConnectNumber(number))) }
    gate.waitUntilBegun(Resolver.threadsMax)
    for number in 0..<Resolver.waitingMax { #expect(ask(resolver, "waits\(number)", 1000 + ConnectNumber(number))) }
    #expect(!ask(resolver, "one more", 1))
    // A name that is being looked up needs no place.
    #expect(ask(resolver, "hangs0", 99))
    gate.open()
    let all = answered(Resolver.threadsMax + Resolver.waitingMax + 1)
    #expect(Set(all).count == all.count)
    #expect(ask(resolver, "afterwards", 1))
    #expect(answered(1) == [1])
    resolver.end()
  }

  @Test("a name that nobody waits for any more is not looked up")
  func forgotten() {
    let gate = Gate()
    let resolver = Resolver { gate.pass($0) }
    for number in 0..<Resolver.threadsMax { _ = ask(resolver, "hangs\(number)", ConnectNumber(number)) }
    gate.waitUntilBegun(Resolver.threadsMax)
    #expect(ask(resolver, "too late", 50, until: CompletionPort.clock()))
    #expect(ask(resolver, "in time", 51))
    gate.open()
    #expect(answered(Resolver.threadsMax + 1).contains(51))
    #expect(!gate.names.contains("too late"))
    resolver.end()
  }

  @Test("questions whose time is over do not pile up behind a look-up that hangs")
  func overdue() {
    let gate = Gate()
    let resolver = Resolver { gate.pass($0) }
    #expect(ask(resolver, "hangs", 0))
    gate.waitUntilBegun(1)
    for number in 1...100 { #expect(ask(resolver, "hangs", ConnectNumber(number))) }
    for number in 1000..<10_000 {
      #expect(ask(resolver, "hangs", ConnectNumber(number), until: CompletionPort.clock()))
    }
    #expect((101...202).contains(resolver.waitingQuestions))
    gate.open()
    #expect(Array(answered(101).prefix(101)) == Array(0...100))
    resolver.end()
  }

  @Test("ending does not wait for a look-up that hangs, and nothing is taken afterwards")
  func ending() {
    let gate = Gate()
    let resolver = Resolver { gate.pass($0) }
    #expect(ask(resolver, "hangs", 1))
    gate.waitUntilBegun(1)
    resolver.end()
    #expect(!ask(resolver, "another", 2))
    gate.open()
  }
}
