import CompletionIO
import TestSupport
import Testing

@testable import ScriptServer

@Suite("A mailbox")
struct MailboxTests {
  @Test("messages come in the order they were posted, with one packet for as many as wait")
  func order() throws {
    let port = try CompletionPort()
    let mailbox = Mailbox<Int>(port: port)
    for number in 0..<1000 { #expect(mailbox.post(number)) }
    let batch = port.dequeue(timeoutNanoseconds: 0)
    #expect(batch.count == 1 && batch[0].kind == .packet)
    var messages = [-1]
    mailbox.drain(into: &messages)
    #expect(messages == Array(-1..<1000))
    mailbox.drain(into: &messages)
    #expect(messages.count == 1001)
    #expect(port.dequeue(timeoutNanoseconds: 0).isEmpty)
    mailbox.post(7)
    #expect(port.dequeue(timeoutNanoseconds: 0).count == 1)
  }

  @Test("urgent messages are fetched apart from all others, and tell the port of themselves")
  func urgent() throws {
    let port = try CompletionPort()
    let mailbox = Mailbox<Int>(port: port)
    mailbox.post(1)
    #expect(mailbox.postUrgent(2) && mailbox.postUrgent(3))
    let keys = port.dequeue(timeoutNanoseconds: 0).map(\.packet.key)
    #expect(keys == [Mailbox<Int>.packetKey, Mailbox<Int>.urgentPacketKey, Mailbox<Int>.urgentPacketKey])
    #expect(mailbox.takeUrgent() == [2, 3] && mailbox.takeUrgent() == [])
    var messages: [Int] = []
    mailbox.drain(into: &messages)
    #expect(messages == [1])
    mailbox.post(4)
    mailbox.postUrgent(5)
    #expect(mailbox.close() == [5, 4])
    #expect(!mailbox.postUrgent(6) && mailbox.takeUrgent() == [])
  }

  @Test("many senders lose nothing, and each one's messages stay in order")
  func senders() throws {
    let port = try CompletionPort()
    let mailbox = Mailbox<Int>(port: port)
    let count = 20000
    var messages: [Int] = []
    var batch: [Int] = []
    withTestThread {
      withTestThread {
        for number in 0..<count { mailbox.post(number) }
      } during: {
        for number in 0..<count { mailbox.post(1_000_000 + number) }
      }
    } during: {
      while messages.count < 2 * count {
        for completion in port.dequeue(timeoutNanoseconds: 10_000_000_000) {
          #expect(completion.kind == .packet)
          mailbox.drain(into: &batch)
          messages += batch
          batch.removeAll()
        }
      }
    }
    #expect(messages.filter { $0 < 1_000_000 } == Array(0..<count))
    #expect(messages.filter { $0 >= 1_000_000 } == Array(1_000_000..<1_000_000 + count))
  }

  @Test("what may be dropped is refused once too many bytes wait, and taken again once they were fetched")
  func bounds() throws {
    let mailbox = Mailbox<Int>(port: try CompletionPort())
    let size = 1 << 20
    var taken = 0
    while taken < 1000, mailbox.postDroppable(taken, bytes: size) { taken += 1 }
    #expect(taken == 64 && !mailbox.hasRoom(forBytes: 0) && !mailbox.hasRoom(forBytes: 1))
    #expect(mailbox.post(1000), "what must arrive is not bounded by bytes")
    #expect(!mailbox.postDroppable(1001, bytes: 1))
    var messages: [Int] = []
    #expect(mailbox.drain(into: &messages) == 64 * size)
    #expect(messages == Array(0..<64) + [1000])
    #expect(mailbox.drain(into: &messages) == 0)
    #expect(mailbox.hasRoom(forBytes: 64 * size) && !mailbox.hasRoom(forBytes: 64 * size + 1))
    #expect(mailbox.postDroppable(1002, bytes: size))
    #expect(mailbox.hasRoom(forBytes: 63 * size) && !mailbox.hasRoom(forBytes: 63 * size + 1))
    #expect(mailbox.post(1003, bytes: 63 * size) && mailbox.post(1004, bytes: 1), "room was asked for before")
    #expect(!mailbox.hasRoom(forBytes: 1))
  }

  @Test("a closed mailbox hands over what waited and takes nothing more")
  func closed() throws {
    let mailbox = Mailbox<Int>(port: try CompletionPort())
    mailbox.post(1)
    mailbox.post(2)
    #expect(mailbox.close() == [1, 2])
    #expect(!mailbox.post(3) && !mailbox.postDroppable(4, bytes: 1))
    var messages: [Int] = []
    mailbox.drain(into: &messages)
    #expect(messages.isEmpty)
    #expect(mailbox.close().isEmpty)
  }
}
