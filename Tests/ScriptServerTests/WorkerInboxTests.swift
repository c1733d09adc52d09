// What one worker takes of its mailbox in a turn, and that what it has not got to stays within the mailbox's bounds.

import CompletionIO
import LuaRuntime
import Testing

@testable import ScriptServer

@Suite("A worker's inbox")
struct WorkerInboxTests {
  private static let script = """
    require("moonport").listen { address = "127.0.0.1:1" }
    return {}
    """

  /// A message for a connection that never was.
  private var message: WorkerMessage { .close(ConnectionID(rawValue: 1), reason: "") }

  @Test("while it is behind, the mailbox's bounds hold, and all that was taken is handled in the end")
  func bounds() throws {
    let host = try AllocationWorker(Self.script)
    let mailbox = host.worker.mailbox
    host.turn()
    // More than a turn handles.
    for _ in 0..<10_000 { mailbox.post(message) }
    host.turn()
    #expect(host.worker.inboxNext < host.worker.inbox.count)
    #expect(mailbox.postDroppable(message, bytes: 64 << 20) && !mailbox.hasRoom(forBytes: 1))
    host.turn()
    #expect(!mailbox.hasRoom(forBytes: 1), "what has not been got to counts")
    host.turn()
    host.turn()
    #expect(mailbox.hasRoom(forBytes: 1))
    #expect(host.worker.inboxNext == host.worker.inbox.count)
  }

  @Test("the room of an unusually long inbox is given up, and what many bytes took goes back to the system")
  func givesUpRoom() throws {
    let host = try AllocationWorker(Self.script)
    for _ in 0..<50_000 { host.worker.mailbox.post(message) }
    for _ in 0..<20 { host.turn() }
    #expect(host.worker.inbox.capacity < 20_000 && host.worker.relaxation.isDue)

    let other = try AllocationWorker(Self.script)
    #expect(other.worker.mailbox.postDroppable(message, bytes: 1 << 20))
    other.turn()
    #expect(!other.worker.relaxation.isDue)
    #expect(other.worker.mailbox.postDroppable(message, bytes: (1 << 20) + 1))
    other.turn()
    #expect(other.worker.relaxation.isDue)
  }

  private static let bulk = """
    local moonport = require("moonport")
    local h = {}
    local seen, order, ended = 0, {}, 0
    local function burn(seconds)
      local over = os.clock() + seconds
      repeat until os.clock() > over
    end
    local function subscribe(i)
      moonport.subscribe("bulk", function(text, seconds)
        seen = seen + 1
        order[i] = (order[i] or "") .. text
        if seconds then burn(seconds) end
      end)
    end
    function h.on_message(conn, text)
      local what, count, more = text:match("(%a+) ?(%d*) ?(.*)")
      count = tonumber(count)
      if what == "subscribe" then
        for i = 1, count do subscribe(i) end
      elseif what == "publish" then
        moonport.after(0, function()
          for i = 1, count do moonport.publish("bulk", tostring(i), tonumber(more)) end
        end)
      elseif what == "wait" then
        awaited = awaited or moonport.spawn(function() while not goes do moonport.sleep(0.001) end end)
        for i = 1, count do moonport.spawn(function() awaited:wait() seen = seen + 1 end) end
      elseif what == "go" then
        goes = true
      elseif what == "burn" then
        burn(0.01)
      elseif what == "timers" then
        for i = 1, count do moonport.after(0, function() seen = seen + 1 burn(0.01) end) end
      elseif what == "spawn" then
        for i = 1, count do moonport.spawn(function() seen = seen + 1 burn(0.01) end) end
      elseif what == "yield" then
        for i = 1, count do moonport.spawn(function() coroutine.yield() seen = seen + 1 burn(0.01) end) end
      elseif what == "sleep" then
        for i = 1, count do
          moonport.spawn(function()
            local _, message = pcall(moonport.sleep, 1e6)
            if message:find("reloaded") then ended = ended + 1 end
          end)
        end
      end
      local orders = {}
      for i = 1, #order do orders[order[i]] = true end
      local all = {}
      for each in pairs(orders) do all[#all + 1] = each end
      conn:send(seen .. " " .. ended .. " " .. table.concat(all, ","))
    end
    moonport.listen { address = "127.0.0.1:1", codec = "line", handler = h }
    return h
    """

  /// What the script says to a line.
  private func ask(_ host: AllocationWorker, _ client: AllocationWorker.Client, _ text: String) -> String {
    client.send(text + "\n")
    host.turn()
    return client.received()
  }

  @Test(
    "a message for more subscriptions than a turn gets to goes on in the next ones, in order and ahead of later messages"
  )
  func delivery() throws {
    let host = try AllocationWorker(Self.bulk)
    let client = host.connect()
    #expect(ask(host, client, "subscribe 3000") == "0 0 \n")
    #expect(ask(host, client, "publish 9") == "0 0 \n")
    while host.worker.counters.published.current < 9 { host.turn() }
    var delivered = 0
    var turns = 0
    while delivered < 27_000, turns < 100 {
      host.turn()
      turns += 1
      let now = host.worker.counters.delivered.current
      #expect((1...4096).contains(now - delivered))
      delivered = now
    }
    #expect(turns >= 7)
    #expect(ask(host, client, "figures") == "27000 0 123456789\n")
  }

  @Test("what one event wakes by the thousand goes on over several turns")
  func waiters() throws {
    let host = try AllocationWorker(Self.bulk)
    let client = host.connect()
    // Some at a time: under a sanitizer all of them would take more than a handler's budget.
    for _ in 0..<20 { #expect(ask(host, client, "wait 100") == "0 0 \n") }
    let deadline = CompletionPort.clock() + 60_000_000_000
    while host.worker.tasks.count < 2001, CompletionPort.clock() < deadline { host.turn() }
    var left = host.worker.tasks.count
    _ = ask(host, client, "go")
    while left > 0, CompletionPort.clock() < deadline {
      let now = host.worker.tasks.count
      // The one that all wait for, and those that it wakes in this turn.
      #expect(left - now <= Worker.duePerTurnMax + 1)
      left = now
      host.turn()
    }
    #expect(ask(host, client, "figures") == "2000 0 \n")
  }

  @Test("slow handlers of a client that sends many messages leave the others theirs in the same turn, and none is lost")
  func slowHandlers() throws {
    let host = try AllocationWorker(Self.bulk)
    let eager = host.connect()
    let other = host.connect()
    let figures = host.worker.counters
    eager.send(String(repeating: "burn\n", count: 200))
    host.turn()
    let first = figures.messagesIn.current
    #expect((1...160).contains(first), "\(first)")
    // Both are there now. The first takes the turn's time, and the second has its one.
    other.send("burn\nburn\nburn\n")
    var last = first
    var turns = 0
    while figures.messagesIn.current < 203, turns < 100 {
      host.turn()
      turns += 1
      #expect(figures.messagesIn.current - last <= 160)
      last = figures.messagesIn.current
    }
    #expect(last == 203)
    #expect(ask(host, other, "figures").hasSuffix("0 0 \n"))
  }

  @Test(
    "slow timers, tasks and subscribers that come together go on over several turns",
    arguments: ["timers", "spawn", "yield"])
  func slowTogether(_ what: String) throws {
    let host = try AllocationWorker(Self.bulk)
    let client = host.connect()
    _ = ask(host, client, "\(what) 100")
    var last = 0
    var largest = 0
    for _ in 0..<200 where last < 100 {
      let seen = Int(ask(host, client, "figures").prefix { $0 != " " }) ?? -1
      largest = max(largest, seen - last)
      last = seen
    }
    #expect(last == 100 && largest <= 64, "\(largest)")
  }

  @Test("a reload of a worker that cannot deliver in time what waits is given up, and nothing of it is lost")
  func reloadBehind() throws {
    let host = try AllocationWorker(Self.bulk)
    let client = host.connect()
    #expect(ask(host, client, "subscribe 2") == "0 0 \n")
    #expect(ask(host, client, "publish 9") == "0 0 \n")
    while host.worker.counters.published.current < 9 { host.turn() }
    let problem = try host.reload(meetingNanoseconds: 0) ?? "none"
    #expect(problem.contains("worker 1 could not deliver in time"), "\(problem)")
    #expect(host.worker.counters.delivered.current == 0)
    while host.worker.delivery != nil || !host.worker.inbox.isEmpty { host.turn() }
    #expect(ask(host, client, "figures") == "18 0 123456789\n")
    #expect(try host.reload() == nil)
  }

  @Test("old code's tasks that are ended by the thousand are ended over several turns")
  func endedTasks() throws {
    let host = try AllocationWorker(Self.bulk)
    let client = host.connect()
    _ = ask(host, client, "sleep 5000")
    while host.worker.tasks.count < 5000 { host.turn() }
    #expect(try host.reload() == nil)
    #expect(host.worker.tasks.count == 5000)
    #expect(try host.reload() == nil)
    var left = host.worker.tasks.count
    #expect(left == 5000)
    while left > 0 {
      host.turn()
      let now = host.worker.tasks.count
      #expect(now < left && left - now <= 1024)
      left = now
    }
    #expect(host.worker.counters.olderTasks.current == 0)
  }

  @Test("messages gathered into one count each")
  func counts() {
    let records = [UInt8]().withUnsafeBytes { SharedBytes(copying: $0) }
    #expect(WorkerMessage.broadcast(BroadcastPacket(records: records, count: 7, room: nil, except: nil)).count == 7)
    #expect(message.count == 1)
  }
}
