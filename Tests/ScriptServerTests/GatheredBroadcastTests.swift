// Broadcasts on their way: gathered and framed as data, and handed out by one worker whose turns the test makes.

import Codecs
import CompletionIO
import Glibc
import TestSupport
import Testing

@testable import ScriptServer

private let codecs: [Codec] = [
  .raw, .line(maxLength: 100), .netstring(maxLength: 100), .fixed(length: 5),
  .delimiter(Delimiter(Array("<>".utf8))!, maxLength: 100),
  .lengthField(try! LengthField(size: 2)),  // cannot fail: the size is allowed
]

/// What a codec makes of a message by itself.
private func frame(_ message: [UInt8], by codec: Codec) -> [UInt8]? {
  guard let framing = try? codec.framing(payloadCount: message.count) else { return nil }
  var bytes = [UInt8](repeating: 0, count: message.count + framing.overhead)
  bytes.withUnsafeMutableBytes { room in
    _ = message.withUnsafeBytes {
      framing.copyFrame(of: $0, to: room.baseAddress ?? UnsafeMutableRawPointer(bitPattern: 8)!)
    }
  }
  return bytes
}

extension GatheredBroadcast {
  fileprivate mutating func add(_ message: [UInt8], room: RoomName? = nil, except: ConnectionID? = nil) {
    message.withUnsafeBytes { append($0, room: room, except: except) }
  }

  fileprivate func messages() -> [[UInt8]] {
    var all: [[UInt8]] = []
    forEachMessage { all.append(Array($0)) }
    return all
  }

  fileprivate mutating func frames(_ codec: Codec, _ index: UInt16) -> [UInt8]? {
    framed(by: codec, index).map { Array($0) }
  }
}

private func name(_ text: String) -> RoomName { Array(text.utf8).withUnsafeBytes { RoomName($0) } }

@Suite("What a turn broadcasts")
struct GatheredBroadcastTests {
  private func someMessages(_ random: inout SeededGenerator, lengths: ClosedRange<Int>) -> [[UInt8]] {
    (0..<Int.random(in: 1...20, using: &random)).map { _ in random.bytes(Int.random(in: lengths, using: &random)) }
  }

  @Test(
    "each codec frames all messages as it frames each of them, in their order, whatever it was asked before", .seeded)
  func framing() {
    var random = SeededGenerator()
    var batch = GatheredBroadcast()
    for _ in 0..<50 {
      let messages = someMessages(&random, lengths: Bool.random(using: &random) ? 5...5 : 0...300)
      for message in messages { batch.add(message) }
      holds(batch.count == messages.count && !batch.isEmpty && batch.messages() == messages)
      for _ in 0..<12 {
        let index = Int.random(in: codecs.indices, using: &random)
        let each = messages.map { frame($0, by: codecs[index]) }
        let expected = each.contains(nil) ? nil : Array(each.compactMap { $0 }.joined())
        holds(batch.frames(codecs[index], UInt16(index)) == expected, "\(codecs[index])")
        holds(expected == nil || batch.framesCount == expected?.count && batch.framesCount <= batch.framedBytesMax)
      }
      batch.removeAll()
      holds(batch.isEmpty && batch.count == 0 && batch.messages().isEmpty)
    }
  }

  @Test("a message that comes after the others were framed is framed with them")
  func grows() {
    var batch = GatheredBroadcast()
    batch.add([1])
    holds(batch.frames(codecs[1], 1) == [1, 10])
    let shared = batch.shared()
    batch.add([2])
    holds(batch.frames(codecs[1], 1) == [1, 10, 2, 10])
    holds(batch.shared() !== shared && Array(batch.shared().bytes) == [1, 10, 2, 10])
    holds(Array(shared.bytes) == [1, 10])
  }

  @Test("what queues share is made once for each framing, and lives on when the batch has gone")
  func sharing() {
    var kept: SharedBytes?
    weak var forgotten: SharedBytes?
    do {
      var batch = GatheredBroadcast()
      batch.add([1, 2, 3])
      _ = batch.frames(codecs[0], 0)
      kept = batch.shared()
      holds(batch.shared() === kept)
      _ = batch.frames(codecs[1], 1)
      forgotten = batch.shared()
      holds(batch.shared() !== kept && forgotten != nil)
      batch.removeAll()
      holds(forgotten == nil)
    }
    #expect(kept.map { Array($0.bytes) } == [1, 2, 3])
  }

  @Test("only what goes to the same connections goes together")
  func takes() {
    let ids = [nil, ConnectionID(rawValue: 1), ConnectionID(rawValue: 2)]
    let rooms = [nil, name("a"), name("b")]
    for except in ids {
      for room in rooms {
        var batch = GatheredBroadcast()
        for otherExcept in ids {
          for otherRoom in rooms {
            holds(batch.takes(1_000_000, room: otherRoom, except: otherExcept))
            batch.add([1], room: room, except: except)
            holds(batch.room == room && batch.except == except)
            holds(batch.takes(1, room: otherRoom, except: otherExcept) == (otherRoom == room && otherExcept == except))
            batch.removeAll()
          }
        }
      }
    }
  }

  @Test("a packet carries all messages with whom they are for, and can be added behind others", .seeded)
  func packets() {
    var random = SeededGenerator()
    for _ in 0..<20 {
      let (first, second) = (someMessages(&random, lengths: 0...200), someMessages(&random, lengths: 0...200))
      var sender = GatheredBroadcast()
      for message in second { sender.add(message, room: name("r"), except: ConnectionID(rawValue: 7)) }
      let packet = sender.packet()
      #expect(packet.count == second.count && packet.room == name("r") && packet.except == ConnectionID(rawValue: 7))
      var receiver = GatheredBroadcast()
      for message in first { receiver.add(message, room: name("r"), except: ConnectionID(rawValue: 7)) }
      sender.removeAll()
      receiver.append(packet)
      holds(receiver.messages() == first + second && receiver.count == first.count + second.count)
      var alone = GatheredBroadcast()
      alone.append(packet)
      holds(alone.messages() == second && alone.room == name("r") && alone.except == ConnectionID(rawValue: 7))
    }
  }

  @Test("a large message goes alone: with no other, and at once")
  func large() {
    let bytes = [UInt8](repeating: 1, count: GatheredBroadcast.largeBytesMin)
    var batch = GatheredBroadcast()
    batch.add(bytes)
    holds(batch.isLarge && batch.isFull)
    let packet = batch.packet()
    batch.removeAll()
    holds(!batch.isLarge && !batch.isFull && batch.takes(packet))
    batch.add(Array(bytes.dropLast()))
    holds(!batch.isLarge && !batch.isFull && !batch.takes(packet))
    holds(batch.takes(bytes.count - 1, room: nil, except: nil) && !batch.takes(bytes.count, room: nil, except: nil))
    holds(batch.takes(batch.packet()))
    batch.add([1])
    holds(!batch.isLarge && !batch.isFull && batch.takes(batch.packet()))
  }

  @Test("many small messages are full with 64 KiB")
  func full() {
    var batch = GatheredBroadcast()
    var count = 0
    while !batch.isFull {
      batch.add([1])
      count += 1
    }
    #expect(count > GatheredBroadcast.bytesMax / 16 && count < GatheredBroadcast.bytesMax)
  }
}

@Suite("A worker that broadcasts")
struct WorkerBroadcastTests {
  private func packet(_ texts: String...) -> BroadcastPacket {
    var batch = GatheredBroadcast()
    for text in texts { batch.add(Array(text.utf8)) }
    return batch.packet()
  }

  @Test("who connects between two broadcasts of one turn gets the later one only")
  func newcomer() throws {
    let host = try AllocationWorker(
      "require 'moonport'.listen { address = '127.0.0.1:0', codec = 'line' } return {}")
    let old = host.connect()
    host.worker.mailbox.post(.broadcast(packet("1", "2")))
    // Its turn has both messages before it, and makes the connection behind them.
    let new = host.connect()
    host.worker.mailbox.post(.broadcast(packet("3")))
    host.turn()
    #expect(old.received() == "1\n2\n3\n")
    #expect(new.received() == "3\n")
  }

  @Test("a turn leaves nothing gathered, nothing due and no connection to flush, and memory of usual size only")
  func leavesNothing() throws {
    let host = try AllocationWorker(
      """
      local moonport = require 'moonport'
      moonport.listen { address = '127.0.0.1:0', codec = 'line' }
      local h = {}
      function h.on_message(conn, text)
        moonport.broadcast(text)
        if text == 'close' then conn:close() end
        if text == 'abort' then conn:abort() end
        if text == 'large' then moonport.broadcast(('x'):rep(1000000)) end
        moonport.broadcast(text, { except = conn })
      end
      function h.on_close(conn) moonport.broadcast('gone') moonport.broadcast('gone', { room = 'none' }) end
      return h
      """)
    let watcher = host.connect()
    for text in ["a", "close", "b", "abort", "large"] {
      let client = host.connect()
      client.send(text + "\n")
      host.turn()
      let worker = host.worker
      holds(worker.gathered.isEmpty && worker.gatheredForOthers.isEmpty && worker.due.isEmpty && worker.dirty.isEmpty)
      #expect(watcher.received().hasPrefix(text + "\n"))
      client.close()
      host.turn()
      _ = watcher.received()
    }
  }
}
