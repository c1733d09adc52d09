// Messages to connections of other workers, on the built program: a worker gathers those of a turn, and nobody may be able to tell, by
// their order with anything else or by what the sender is told.
//
// Must never know: anything but the program's command line, its streams and its sockets.

import TestSupport
import Testing

@Suite struct SendOrderTests {
  @Test(arguments: [1, 2, 4])
  func `many messages of one handler arrive in order, with large ones, writes and broadcasts between`(workers: Int)
    throws
  {
    let stage = try BroadcastStage(workers: workers, members: 4)
    for (index, member) in stage.members.enumerated() {
      let next = stage.members[(index + 1) % stage.members.count]
      try stage.run(
        """
        for i = 1, 700 do moonport.send(\(member.id), 'm' .. i) if i % 7 == 0 then moonport.send(\(next.id), 'n' .. i) end \
        if i % 100 == 0 then moonport.send(\(member.id), ('x'):rep(5000) .. i) end \
        if i % 150 == 0 then moonport.broadcast('b' .. i) end \
        if i % 170 == 0 then moonport.write(\(member.id), 'w' .. i .. '\\n') end end
        """)
      var own = "", neighbours = "", others = ""
      for number in 1...700 {
        own += "m\(number)\n"
        if number % 7 == 0 { neighbours += "n\(number)\n" }
        if number % 100 == 0 { own += String(repeating: "x", count: 5000) + "\(number)\n" }
        if number % 150 == 0 {
          own += "b\(number)\n"
          neighbours += "b\(number)\n"
          others += "b\(number)\n"
        }
        if number % 170 == 0 { own += "w\(number)\n" }
      }
      for other in stage.members.indices {
        let isNext = stage.members[other].id == next.id
        try stage.expect(other, other == index ? own : isNext ? neighbours : others)
      }
    }
    try stage.server.stop()
  }

  @Test func `what is sent before a close arrives before it, and nothing after`() throws {
    let stage = try BroadcastStage(workers: 2, members: 2)
    let far = try #require(stage.members.first { !$0.isHere })
    try stage.run(
      "moonport.send(\(far.id), 'first') moonport.send(\(far.id), 'second') moonport.close(\(far.id), 'enough')"
        + " moonport.send(\(far.id), 'late')", marks: false)
    #expect(try far.client.receiveTextUntilEnd() == "first\nsecond\n")
    try stage.server.stop()
  }

  @Test func `a sender is told when a worker is too far behind, and all that was taken arrives`() throws {
    let server = try MoonportProcess.serving(
      """
      local text = ("x"):rep(3999)
      function h.on_open(conn) conn:send(moonport.worker.id .. " " .. conn.id) end
      function h.on_message(conn, line)
        if line == "busy" then
          conn:send("busy")
          moonport.sleep(0)
          moonport.shared("seen"):set("busy", true)
          while not moonport.shared("seen"):get("over") do end
        else
          local sent = 0
          -- What comes before the other worker is busy would be delivered.
          while not moonport.shared("seen"):get("busy") do end
          while true do
            local done, problem = moonport.send(tonumber(line), text)
            if not done then moonport.shared("seen"):set("over", problem) conn:send(sent .. " " .. problem) break end
            sent = sent + 1
          end
        end
      end
      """, "codec = 'line', output_limit = { hard = 1000000000, soft = 1000000000 }", workers: 2
    ) { $0.arguments = ["--handler-budget", "60"] }
    let (one, other) = (try server.connect(), try server.connect())
    let (mine, far) = (try one.receiveLine().split(separator: " "), try other.receiveLine().split(separator: " "))
    #expect(mine[0] != far[0])
    #expect(try other.ask("busy") == "busy")
    let answer = try one.ask("\(far[1])").split(separator: " ").map(String.init)
    let sent = try #require(Int(answer[0]))
    #expect(answer[1] == "overflow")
    // 64 MB wait at most, and what was gathered when that was looked at.
    #expect((64 << 20) / 4100 < sent && sent < (65 << 20) / 3999, "\(sent)")
    let received = try other.receive(exactly: sent * 4000)
    #expect(received.count { $0 == UInt8(ascii: "\n") } == sent)
    try server.stop()
  }
}
