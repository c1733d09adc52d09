// examples/redis.lua, used by Debian's redis-cli and redis-benchmark and by bytes on sockets, with two workers.
//
// Must never know: anything of the script that its user could not see.

import Glibc
import TestSupport
import Testing

@Suite(.serialized) struct RedisExampleTests {
  private func serve() throws -> MoonportProcess {
    try MoonportProcess(file: ProjectFiles.path("examples/redis.lua")) {
      $0.listen = MoonportProcess.anyPort
      $0.workers = 2
    }
  }

  private func port(of server: MoonportProcess) throws -> String {
    try #require(server.address.split(separator: ":").last.map(String.init))
  }

  /// Runs one of redis-tools until it ends.
  private func run(
    _ tool: String, _ server: MoonportProcess, _ arguments: [String], input: String? = nil, timeout: Double = 60
  ) throws -> (status: TestSupport.ExitStatus, output: String, errors: String) {
    var launch = Launch("/usr/bin/\(tool)", ["-h", "127.0.0.1", "-p", try port(of: server)] + arguments)
    launch.streams = .pipe
    let child = try ChildProcess(launch)
    if let input { try child.type(input) }
    child.closeInput()
    let status = try child.waitForExit(timeout: Patience.scaled(timeout))
    return (status, child.output.text, child.errors.text)
  }

  /// A request as redis clients send it.
  private func request(_ words: String...) -> String {
    "*\(words.count)\r\n" + words.map { "$\($0.utf8.count)\r\n\($0)\r\n" }.joined()
  }

  /// Sends bytes and expects exactly these back.
  private func exchange(_ client: TestClient, _ sent: String, _ expected: String) throws {
    try client.send(sent)
    let answer = String(decoding: try client.receive(exactly: expected.utf8.count), as: UTF8.self)
    #expect(answer == expected, "\(sent)")
  }

  // MARK: redis-cli

  /// What is typed into redis-cli, and what it prints when that is no terminal.
  private static let conversation: [(String, String)] = [
    ("PING", "PONG"), ("PING hello", "hello"), ("ECHO \"two words\"", "two words"), ("SET k v", "OK"), ("GET k", "v"),
    ("GET none", ""), ("SET k w NX", ""), ("SET k w XX", "OK"), ("SET none w XX", ""), ("SET k x GET", "w"),
    ("SET t v EX 100", "OK"), ("TTL t", "100"), ("SET t w KEEPTTL", "OK"), ("TTL t", "100"), ("SET t v", "OK"),
    ("TTL t", "-1"), ("TTL none", "-2"), ("EXPIRE t 50", "1"), ("EXPIRE none 50", "0"), ("TTL t", "50"),
    ("PERSIST t", "1"),
    ("PERSIST t", "0"), ("EXPIRE t -1", "1"), ("EXISTS t", "0"), ("SET p v PX 100000", "OK"), ("TTL p", "100"),
    ("SET p v EX 0", "ERR invalid expire time in 'set' command\n"),
    ("SET p v EX x", "ERR value is not an integer or out of range\n"),
    ("SET p v NX XX", "ERR syntax error\n"), ("SET p v EX", "ERR syntax error\n"),
    ("INCR n", "1"), ("INCRBY n 41", "42"), ("DECR n", "41"), ("DECRBY n 40", "1"), ("GET n", "1"),
    (
      "INCR k",
      "ERR value is not an integer or out of range\n"
    ),
    ("SET n 9223372036854775807", "OK"), ("INCR n", "ERR increment or decrement would overflow\n"),
    ("SET n 007", "OK"), ("GET n", "007"), ("INCR n", "ERR value is not an integer or out of range\n"),
    ("INCRBY n 1.5", "ERR value is not an integer or out of range\n"),
    ("APPEND a one", "3"), ("APPEND a two", "6"), ("GET a", "onetwo"), ("STRLEN a", "6"), ("STRLEN none", "0"),
    ("SET i 12", "OK"), ("APPEND i 3", "3"), ("INCR i", "124"),
    ("MSET x 1 y 2", "OK"), ("MGET x none y", "1\n\n2"),
    ("MSET x", "ERR wrong number of arguments for 'mset' command\n"),
    ("DEL x y none", "2"), ("EXISTS k k none", "2"),
    ("RPUSH l b c", "2"), ("LPUSH l a", "3"), ("LLEN l", "3"), ("LRANGE l 0 -1", "a\nb\nc"), ("LRANGE l 1 1", "b"),
    ("LRANGE l -2 100", "b\nc"), ("LRANGE l 5 9", ""), ("LPOP l", "a"), ("RPOP l", "c"), ("LPOP l 5", "b"),
    ("LPOP l", ""),
    ("LLEN l", "0"), ("RPUSH l 1", "1"),
    ("GET l", "WRONGTYPE Operation against a key holding the wrong kind of value\n"),
    ("INCR l", "WRONGTYPE Operation against a key holding the wrong kind of value\n"),
    ("APPEND l x", "WRONGTYPE Operation against a key holding the wrong kind of value\n"),
    ("LPUSH k x", "WRONGTYPE Operation against a key holding the wrong kind of value\n"),
    ("MGET l", ""), ("TYPE l", "list"), ("TYPE k", "string"), ("TYPE none", "none"),
    ("FLUSHALL", "OK"), ("DBSIZE", "0"), ("MSET one 1 two 2 t.ree 3", "OK"), ("DBSIZE", "3"), ("KEYS t?o", "two"),
    ("KEYS *n*", "one"), ("KEYS t.*", "t.ree"), ("KEYS [^t]*", "one"), ("KEYS %a", ""),
    ("GET", "ERR wrong number of arguments for 'get' command\n"),
    ("get a b", "ERR wrong number of arguments for 'get' command\n"),
    ("NONSENSE x", "ERR unknown command 'NONSENSE'\n"), ("HELLO 3", "NOPROTO this server speaks RESP2 only\n"),
    ("CONFIG GET appendonly", "appendonly\nno"), ("PUBLISH nobody hi", "0"),
    ("SELECT 1", "ERR DB index is out of range\n"),
  ]

  @Test func `redis-cli gets what Redis would answer`() throws {
    let server = try serve()
    let typed = Self.conversation.map { $0.0 + "\n" }.joined()
    let result = try run("redis-cli", server, [], input: typed)
    #expect(result.status == .exited(0))
    #expect(result.output == Self.conversation.map { $0.1 + "\n" }.joined())
    try server.stop()
  }

  // MARK: Bytes

  @Test func `commands may come many at once, in pieces, and typed by hand`() throws {
    let server = try serve()
    let client = try server.connect()
    client.setNoDelay()
    try exchange(
      client, request("SET", "k", "v") + request("GET", "k") + "GET k\r\n\r\n  ping \n" + request("GET", "none"),
      "+OK\r\n$1\r\nv\r\n$1\r\nv\r\n+PONG\r\n$-1\r\n")
    for byte in Array((request("APPEND", "k", "\r\n") + "STRLEN k\r\n").utf8) { try client.send([byte]) }
    try exchange(client, "", ":3\r\n:3\r\n")
    let long = String(repeating: "long value ", count: 200_000)
    try exchange(client, request("SET", "long", long) + request("STRLEN", "long"), "+OK\r\n:2200000\r\n")
    try exchange(client, request("GET", "long"), "$2200000\r\n\(long)\r\n")
    try exchange(client, "QUIT\r\nPING\r\n", "+OK\r\n")
    #expect(try client.waitForEnd() == .closed)
    try server.stop()
  }

  @Test(arguments: [
    ("*1\r\n+4\r\nPING\r\n", "expected '$', got '+'"), ("*9999999\r\n", "invalid multibulk length"),
    ("*x\r\n", "invalid multibulk length"), ("*1\r\n$99999999999\r\n", "invalid bulk length"),
    ("*1\r\n$x\r\n", "invalid bulk length"), (String(repeating: "x", count: 70_000), "too big inline request"),
  ]) func `what is no request is told so, and the connection ends`(sent: String, problem: String) throws {
    let server = try serve()
    let client = try server.connect()
    try client.send(request("SET", "k", "v") + sent)
    #expect(try client.receiveTextUntilEnd() == "+OK\r\n-ERR Protocol error: \(problem)\r\n")
    try server.stop()
  }

  @Test func `subscribers on every worker get what is published, and may ask for nothing else`() throws {
    let server = try serve()
    let clients = try (0..<4).map { _ in try server.connect() }
    for client in clients {
      try exchange(
        client, request("SUBSCRIBE", "news", "weather"),
        "*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n*3\r\n$9\r\nsubscribe\r\n$7\r\nweather\r\n:2\r\n")
    }
    let publisher = try server.connect()
    try exchange(publisher, request("PUBLISH", "news", "hello"), ":4\r\n")
    for client in clients { try exchange(client, "", "*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$5\r\nhello\r\n") }
    try exchange(
      clients[0], request("GET", "k"),
      "-ERR Can't execute 'get': only SUBSCRIBE / UNSUBSCRIBE / PING / QUIT are allowed in this context\r\n")
    try exchange(clients[0], request("PING"), "*2\r\n$4\r\npong\r\n$0\r\n\r\n")
    try exchange(clients[0], request("UNSUBSCRIBE", "news"), "*3\r\n$11\r\nunsubscribe\r\n$4\r\nnews\r\n:1\r\n")
    clients[1].close()
    try eventually("two are left") {
      try exchange(clients[2], request("PING"), "*2\r\n$4\r\npong\r\n$0\r\n\r\n")
      return try server.control("status", "--json").output.contains("\"connections\":4,")
    }
    #expect(try server.control("reload").status == .exited(0))
    try exchange(publisher, request("PUBLISH", "news", "again"), ":2\r\n")
    try exchange(clients[3], "", "*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$5\r\nagain\r\n")
    try exchange(clients[0], request("UNSUBSCRIBE"), "*3\r\n$11\r\nunsubscribe\r\n$7\r\nweather\r\n:0\r\n")
    try exchange(clients[0], request("UNSUBSCRIBE"), "*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n")
    try exchange(clients[0], request("GET", "k"), "$-1\r\n")
    try server.stop()
  }

  @Test func `appends and increments of clients of both workers are all there`() throws {
    let server = try serve()
    let rounds = 300
    try inParallel(4, timeout: Patience.scaled(60)) { _ in
      let client = try server.connect()
      for _ in 0..<rounds {
        try client.send(request("APPEND", "text", "x") + request("INCR", "sum"))
        _ = try client.receiveLine()
        _ = try client.receiveLine()
      }
    }
    try exchange(try server.connect(), request("STRLEN", "text") + request("GET", "sum"), ":1200\r\n$4\r\n1200\r\n")
    try server.stop()
  }

  // MARK: redis-benchmark

  @Test(arguments: [1, 16]) func `redis-benchmark finishes while the server reloads every second`(pipeline: Int) throws
  {
    let server = try serve()
    let isOver = Flag()
    let reloads = TestThread {
      var count = 0
      while !isOver.isRaised {
        try server.done("reload")
        count += 1
        // The next one a second later, or at once when the clients are done.
        for _ in 0..<20 where !isOver.isRaised { usleep(50_000) }
      }
      #expect(count > 0)
    }
    let tests = "ping,set,get,incr,lpush,rpush,lpop,rpop,mset"
    let requests = isLongRun ? (pipeline == 1 ? 200_000 : 1_000_000) : 5_000
    let result = try run(
      "redis-benchmark", server, ["-t", tests, "-c", "50", "-n", "\(requests)", "-P", "\(pipeline)", "--csv"],
      timeout: isLongRun ? 900 : 60)
    isOver.raise()
    try reloads.join(timeout: Patience.scaled(60))
    #expect(result.status == .exited(0) && result.errors == "", "\(result)")
    let lines = result.output.split(separator: "\n")
    #expect(lines.count == 11 && lines[0].hasPrefix("\"test\",\"rps\""), "\(result.output)")
    #expect(!contains(result.output, "rror"), "\(result.output)")
    if isLongRun { print(result.output) }
    #expect(try server.status()["errors"].integer == 0)
    try server.stop()
  }
}
