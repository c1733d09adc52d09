// What an operator reads: the status screen, its JSON, the table of connections.

import ScriptServer
import Testing

@Suite("Admin reports")
struct AdminReportsTests {
  private static var status: ServerStatus {
    var status = ServerStatus()
    status.version = "0.1.0"
    status.generation = 7
    status.contentHash = "3f2a9c0145aabbccdd"
    status.scriptPath = "/srv/chat.lua"
    status.uptimeSeconds = 93_784
    status.processID = 4711
    status.connections = 1234
    status.messagesIn = 12_345_678
    status.messagesOut = 98_765_432
    status.bytesIn = 1_500_000_000
    status.bytesOut = 12_000
    status.errors = 3
    status.offload.threads = 2
    status.offload.threadsMax = 4
    status.offload.running = 2
    status.offload.waiting = 17
    status.offload.finished = 2345
    status.offload.refused = 6
    status.refused = ["max_connections": 2, "max_connections_per_ip": 5, "on_open": 0]
    for id in 1...2 {
      var worker = WorkerStatus()
      worker.id = id
      worker.connections = 617
      worker.messagesIn = 6_172_839
      worker.messagesOut = 49_382_716
      worker.memoryBytes = 12_582_912
      worker.handlersOnOlderGenerations = id - 1
      worker.published = 1_000
      worker.delivered = 2_500
      worker.subscriptions = 8
      worker.dropped = 6
      worker.busySeconds = 31_886
      worker.longestTurnSeconds = 0.0123
      status.workers.append(worker)
    }
    var listener = ListenerStatus()
    listener.address = "[2001:db8:1234:5678:9abc:def0:1234:567]:6553"
    listener.codec = "line"
    listener.open = 1234
    listener.accepted = 123_456
    listener.refused = 7
    status.listeners = [listener]
    return status
  }

  @Test("the screen shows every figure with its unit, in 80 columns")
  func screen() {
    var status = Self.status
    var reload = ReloadStatus()
    reload.text = "chat.lua:12: unexpected symbol near 'x'\n" + String(repeating: "y", count: 200)
    reload.ageSeconds = 75
    status.lastReload = reload
    status.watches = true
    status.draining = true
    let text = StatusReport.text(status)
    for part in [
      "moonport 0.1.0, pid 4711, up 1 d 02 h, draining", "/srv/chat.lua",
      "7 (3f2a9c0145aa), reloads when a file changes",
      "failed 1 min 15 s ago", "chat.lua:12: unexpected symbol", "1 handler still runs it", "1,234 open",
      "12,345,678 in, 98,765,432 out", "1.4 GiB in, 11.7 KiB out", "24.0 MiB",
      "2,000 published, 5,000 delivered, 16 subscribed", "dropped      12",
      "offloaded    2,345 finished, 2 running, 17 waiting, 6 refused",
      "7 (max_connections 2, max_connections_per_ip 5)",
      "123,456", "34 %", "12 ms",
    ] {
      #expect(text.contains(part), "\(part) is missing in:\n\(text)")
    }
    for line in text.split(separator: "\n") { #expect(line.count <= 80, "\(line)") }
  }

  @Test("the columns of a table line up")
  func columns() {
    let lines = StatusReport.text(Self.status).split(separator: "\n", omittingEmptySubsequences: false)
    let start = lines.firstIndex { $0 == "Workers" }! + 1
    let counts = lines[start..<(start + 3)].map(\.count)
    #expect(Set(counts).count == 1, "\(lines[start..<(start + 3)])")
  }

  @Test("a status without a reload, a listener or a refusal is shown as well")
  func emptyStatus() {
    let text = StatusReport.text(ServerStatus())
    #expect(!text.contains("last reload"))
    #expect(text.contains("Listeners\n  none"))
  }

  @Test("a script's text cannot colour or move the operator's terminal")
  func harmless() {
    var status = ServerStatus()
    var reload = ReloadStatus()
    reload.text = "evil \u{1B}[2J\u{9B}31m"
    status.lastReload = reload
    #expect(!StatusReport.text(status).unicodeScalars.contains { $0 == "\u{1B}" || $0 == "\u{9B}" })
  }

  @Test("the traceback of a reload that failed is indented")
  func indented() {
    var status = ServerStatus()
    var reload = ReloadStatus()
    reload.text = "main.lua:1: no luck\nstack traceback:\n\tmain.lua:1: in local 'chunk'"
    status.lastReload = reload
    let text = StatusReport.text(status)
    #expect(text.contains("\n               main.lua:1: no luck\n               stack traceback:\n"))
    #expect(text.contains("\n                 main.lua:1: in local 'chunk'\n"))
  }

  @Test("the JSON begins with the contract's keys, in order, and generation is an integer")
  func json() {
    let json = StatusReport.json(Self.status)
    var rest = json[...]
    for key in [
      "version", "generation", "uptime", "connections", "messages_in", "messages_out", "bytes_in", "bytes_out",
      "workers", "listeners", "errors", "refused",
    ] {
      guard let place = rest.firstRange(of: "\"\(key)\":") else {
        Issue.record("\(key) is missing or out of order in \(json)")
        return
      }
      rest = rest[place.upperBound...]
    }
    #expect(json.contains("\"generation\":7,"))
    #expect(json.contains("\"uptime\":93784.0,"))
    #expect(json.contains("\"refused\":{\"max_connections\":2,\"max_connections_per_ip\":5,\"on_open\":0}"))
    #expect(json.contains("\"workers\":[{\"id\":1,\"connections\":617,"))
    #expect(json.contains("\"last_reload\":null"))
    #expect(json.contains("\"published\":2000,\"delivered\":5000,\"subscriptions\":16,\"dropped\":12,"))
    #expect(
      json.contains(
        "\"offload\":{\"threads\":2,\"threads_max\":4,\"running\":2,\"waiting\":17,\"finished\":2345,\"refused\":6}"))
    #expect(json.hasSuffix("}\n"))
  }

  @Test("strings in the JSON are escaped")
  func escapes() {
    var status = ServerStatus()
    status.scriptPath = "a\"b\\c\n\u{1}"
    #expect(StatusReport.json(status).contains(#""script":"a\"b\\c"#))
    #expect(!StatusReport.json(status).dropLast().contains("\n"))
  }

  @Test("connections are listed by id, with their rooms, and counted")
  func connections() {
    var first = ConnectionSummary()
    first.id = 9
    first.peer = "127.0.0.1:40000"
    first.address = "127.0.0.1:6000"
    first.worker = 2
    first.ageSeconds = 61
    first.idleSeconds = 0.5
    first.messagesIn = 12
    first.queuedBytes = 2048
    first.rooms = ["lobby", "a", "b", "c", "d", "e\u{1B}"]
    var second = first
    second.id = 3
    second.rooms = []
    let text = ConnectionsReport.text([first, second])
    let lines = text.split(separator: "\n")
    #expect(lines.count == 4)
    #expect(lines[1].hasPrefix("   3  127.0.0.1:40000"))
    #expect(lines[2].hasPrefix("   9  127.0.0.1:40000"))
    #expect(lines[2].hasSuffix("2.0 KiB  a, b, c, d, and 2 more"))
    #expect(lines[3] == "2 connections")
    #expect(ConnectionsReport.text([]) == "no connections\n")
  }

  @Test("figures read well at any size, and the extremes do not trap")
  func figures() {
    #expect(FigureText.count(0) == "0")
    #expect(FigureText.count(-1_234_567) == "-1,234,567")
    #expect(FigureText.count(.min) == "-9,223,372,036,854,775,808")
    #expect(FigureText.shortCount(9_999_999) == "9,999,999")
    #expect(FigureText.shortCount(12_345_678) == "12.3 M")
    #expect(FigureText.shortCount(.max) == "9.2 E")
    #expect(FigureText.size(1023) == "1023 B")
    #expect(FigureText.size(1536) == "1.5 KiB")
    #expect(FigureText.size(1_048_575) == "1.0 MiB")
    #expect(FigureText.size(.min) == "-8.0 EiB")
    #expect(FigureText.span(0.25) == "0.25 s")
    #expect(FigureText.span(59.9) == "59 s")
    #expect(FigureText.span(185) == "3 min 05 s")
    #expect(FigureText.span(7620) == "2 h 07 min")
    #expect(FigureText.span(.infinity) == "-")
    #expect(FigureText.span(1e300).hasSuffix("h"))
    #expect(FigureText.shortSpan(0.0003) == "0.3 ms")
    #expect(FigureText.shortSpan(1.25) == "1.3 s" || FigureText.shortSpan(1.25) == "1.2 s")
    #expect(FigureText.percent(0.337) == "34 %")
    #expect(FigureText.percent(.nan) == "-")
    #expect(FigureText.decimal(-0.04, places: 1) == "0.0")
    #expect(FigureText.decimal(.infinity, places: 1) == "-")
  }
}
