// What broadcasts are to those who get them, on the built program: as if each were handed out where the script says it. The server
// gathers those of a turn, and nobody may be able to tell: neither by their order with anything else, nor by who gets them, nor by
// what they do to a connection.
//
// Must never know: anything but the program's command line, its streams and its sockets.

import TestSupport
import Testing

@Suite struct BroadcastOrderTests {
  @Test(arguments: [1, 2])
  func `a broadcast comes behind what was sent before it and ahead of what is sent after it, by any way`(
    workers: Int
  ) throws {
    let stage = try BroadcastStage(workers: workers, members: 4)
    let big = "('x'):rep(70000)"
    for (index, member) in stage.members.enumerated() {
      let (id, here) = (member.id, "kept[\(member.id)]")
      let direct =
        "\(here):send('a') moonport.broadcast('b') \(here):send('c', 'd') moonport.broadcast('') \(here):send('')"
        + " moonport.broadcast('e') \(here):write('f', 'g') moonport.broadcast('h') \(here):write('i\\n')"
      let byId =
        " moonport.broadcast('j') moonport.send(\(id), 'k') moonport.broadcast('l') moonport.write(\(id), 'm\\n')"
        + " moonport.broadcast(\(big)) moonport.send(\(id), 'n') moonport.broadcast('o')"
      try stage.run((member.isHere ? direct : "") + byId)
      let large = String(repeating: "x", count: 70000)
      let own = member.isHere ? "a\nb\ncd\n\n\ne\nfgh\ni\n" : ""
      try stage.expect(index, own + "j\nk\nl\nm\n\(large)\nn\no\n")
      let others = (member.isHere ? "b\n\ne\nh\n" : "") + "j\nl\n\(large)\no\n"
      for other in stage.members.indices where other != index { try stage.expect(other, others) }
    }
  }

  @Test(arguments: [1, 2])
  func `who joins a room gets what is broadcast from then on, who leaves it what was broadcast until then`(
    workers: Int
  ) throws {
    let stage = try BroadcastStage(workers: workers, members: 2)
    let first = try #require(stage.members.firstIndex { $0.isHere })
    let other = 1 - first
    #expect(try stage.members[other].client.ask("return conn:join('r')") == "true")
    let here = "kept[\(stage.members[first].id)]"
    try stage.run(
      "local function say(text) moonport.broadcast(text, { room = 'r' }) end say('1') \(here):join('r') say('2') say('3')"
        + " \(here):leave('r') say('4') \(here):join('r') say('5')")
    try stage.expect(first, "2\n3\n5\n")
    try stage.expect(other, "1\n2\n3\n4\n5\n")
  }

  @Test(arguments: [1, 2])
  func `each message is framed by the codec that the connection has where it is broadcast`(workers: Int) throws {
    let stage = try BroadcastStage(workers: workers, members: 2)
    let first = try #require(stage.members.firstIndex { $0.isHere })
    let here = "kept[\(stage.members[first].id)]"
    try stage.run(
      "moonport.broadcast('a') \(here):set_codec('netstring') moonport.broadcast('b') moonport.broadcast('bb')"
        + " \(here):set_codec({ type = 'fixed', length = 2 }) moonport.broadcast('no') moonport.broadcast('not this')"
        + " moonport.broadcast('us') \(here):set_codec({ decode = function() end, encode = function(m) return '<' .. m .. '>' end })"
        + " moonport.broadcast('c') moonport.broadcast('d') \(here):set_codec('line') moonport.broadcast('e')")
    try stage.expect(first, "a\n1:b,2:bb,nous<c><d>e\n")
    try stage.expect(1 - first, "a\nb\nbb\nno\nnot this\nus\nc\nd\ne\n")
  }

  @Test(arguments: [1, 2])
  func `a broadcast leaves out whom except names, by connection or by id, on any worker`(workers: Int) throws {
    let stage = try BroadcastStage(workers: workers, members: 3)
    let here = try #require(stage.members.firstIndex { $0.isHere })
    let ids = stage.members.map(\.id)
    try stage.run(
      "moonport.broadcast('all') moonport.broadcast('a', { except = kept[\(ids[here])] })"
        + (0..<3).map { " moonport.broadcast('not \($0)', { except = \(ids[$0]) })" }.joined()
        + " moonport.broadcast('end', { except = 12345 })")
    for index in 0..<3 {
      let others = (0..<3).filter { $0 != index }.map { "not \($0)\n" }.joined()
      try stage.expect(index, "all\n" + (index == here ? "" : "a\n") + others + "end\n")
    }
  }

  @Test(arguments: [1, 2])
  func `who is closed has got what was broadcast before, and nothing of what is broadcast after`(workers: Int) throws {
    for (way, victim) in [
      ("kept[ID]:close()", 0), ("kept[ID]:close()", 1), ("moonport.close(ID)", 0), ("moonport.close(ID)", 1),
    ] {
      let stage = try BroadcastStage(workers: workers, members: 2)
      let member = stage.members[victim]
      guard member.isHere || way.hasPrefix("moonport") else { continue }
      let close = way.replacing("ID", with: member.id)
      try stage.run("moonport.broadcast('before') \(close) moonport.broadcast('after')", marks: false)
      #expect(try member.client.receiveTextUntilEnd() == "before\n", "\(way)")
      #expect(try stage.members[1 - victim].client.receiveLines(2) == ["before", "after"])
    }
  }

  @Test func `a client that ended its side still gets what its last messages broadcast, and the answers in between`()
    throws
  {
    let stage = try BroadcastStage(workers: 1, members: 1)
    let client = stage.members[0].client
    try client.send("moonport.broadcast('1') return 2\nmoonport.broadcast('3') return 4\n")
    try client.halfClose()
    #expect(try client.receiveTextUntilEnd() == "1\n2\n3\n4\n")
    #expect(try stage.driver.receiveLines(2) == ["1", "3"])
  }

  @Test(arguments: [1, 2])
  func `a coroutine that waits between broadcasts has the earlier ones out before the later`(workers: Int) throws {
    let stage = try BroadcastStage(workers: workers, members: 2)
    let ids = stage.members.map(\.id)
    try stage.run(
      "for i = 1, 5 do moonport.broadcast('b' .. i) moonport.send(\(ids[0]), 's' .. i) moonport.sleep(i % 2 * 0.001)"
        + " moonport.send(\(ids[1]), 't' .. i) end")
    try stage.expect(0, (1...5).map { "b\($0)\ns\($0)\n" }.joined())
    try stage.expect(1, (1...5).map { "b\($0)\nt\($0)\n" }.joined())
  }

  @Test func `an outgoing connection in a room gets what is broadcast there, in order with what it is sent`() throws {
    let listener = try TestListener()
    let stage = try BroadcastStage(workers: 1, members: 0)
    try stage.run("kept.up = assert(moonport.connect('\(listener.address)'))")
    let upstream = try listener.accept()
    try stage.run(
      "local up = kept.up moonport.broadcast('no client') up:join('r') up:send('1') moonport.broadcast('2', { room = 'r' })"
        + " up:send('3') moonport.broadcast('4', { room = 'r', except = up }) moonport.broadcast('5', { room = 'r' }) up:close()"
    )
    #expect(try upstream.receiveTextUntilEnd() == "1235")
  }

  @Test func `what is broadcast while a connection is piped never reaches it, even where the pipe ends at once`() throws
  {
    let listener = try TestListener()
    let stage = try BroadcastStage(workers: 1, members: 1)
    let (client, id) = (stage.members[0].client, stage.members[0].id)
    try stage.run("kept.up = assert(moonport.connect('\(listener.address)'))")
    let upstream = try listener.accept()
    try stage.expect(0, "")
    try stage.run("moonport.spawn(moonport.pipe, kept[\(id)], kept.up)", marks: false)
    try upstream.send("bytes")
    #expect(try client.receive(exactly: 5) == Array("bytes".utf8))
    try stage.run("moonport.broadcast('not for the piped') kept.up:close()", marks: false)
    #expect(try client.receiveTextUntilEnd() == "")
  }

  @Test(.seeded, arguments: [1, 2])
  func `random scripts reach everybody as if each broadcast were handed out at once`(workers: Int) throws {
    var random = SeededGenerator()
    let stage = try BroadcastStage(workers: workers, members: 6)
    var model = BroadcastModel(stage.members.map { ($0.id, $0.isHere) })
    for _ in 0..<40 {
      var script = ""
      for _ in 0..<Int.random(in: 1...40, using: &random) { script += model.step(&random) + " " }
      try stage.run(script)
      for (index, bytes) in model.takeExpected().enumerated() { try stage.expect(index, bytes, "\(script)") }
    }
  }
}
