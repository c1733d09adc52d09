// The examples that are services of their own, login, smtp and game, served by the built program and used as their first lines say.
//
// Must never know: anything of a script that its user could not see.

import Foundation
import TestSupport
import Testing

@Suite struct ServiceExampleTests {
  private func serve(_ name: String, workers: Int? = nil, _ arguments: String...) throws -> MoonportProcess {
    try MoonportProcess(file: ProjectFiles.path("examples/\(name).lua")) {
      $0.listen = MoonportProcess.anyPort
      $0.workers = workers
      $0.scriptArguments = arguments
    }
  }

  private func expect(_ text: String, from client: TestClient) throws {
    let got = String(decoding: try client.receive(exactly: text.utf8.count), as: UTF8.self)
    #expect(got == text)
  }

  // MARK: login

  private func logIn(_ name: String, _ password: String, to server: MoonportProcess) throws -> TestClient {
    let client = try server.connect()
    try expect("name: ", from: client)
    try client.send("\(name)\n")
    try expect("password: ", from: client)
    try client.send("\(password)\n")
    return client
  }

  @Test func `login lets in who knows the password, and tells those who are in`() throws {
    let server = try serve("login")
    let ada = try logIn("ada", "lovelace", to: server)
    #expect(try ada.receiveLine() == "welcome, ada")
    #expect(try ada.ask("who") == "1 inside")
    let bob = try logIn("bob", "builder", to: server)
    #expect(try bob.receiveLine() == "welcome, bob")
    #expect(try ada.receiveLine() == "bob came in")
    #expect(try ada.ask("who") == "2 inside")
    #expect(try ada.ask("dance") == "there are: who, quit")
    #expect(try bob.ask("quit") == "good bye, bob")
    #expect(try bob.waitForEnd() == .closed)
    #expect(try ada.receiveLine() == "bob left")
  }

  @Test func `login ends after three tries, and a right one among them counts`() throws {
    let server = try serve("login")
    let wrong = try logIn("ada", "x", to: server)
    let second = try logIn("nobody", "", to: server)
    for (name, password) in [("bob", "lovelace"), ("", "")] {
      try expect("wrong name or password\nname: ", from: wrong)
      try wrong.send("\(name)\n")
      try expect("password: ", from: wrong)
      try wrong.send("\(password)\n")
    }
    try expect("wrong name or password\nname: ", from: second)
    // Both answers at once: the second is there when it is asked for.
    try second.send("ada\nlovelace\n")
    try expect("password: welcome, ada\n", from: second)
    #expect(try wrong.receiveTextUntilEnd() == "wrong name or password\nno login: too many tries\n")
    #expect(try second.ask("who") == "1 inside")
    for text in ["wrong password name=ada", "wrong password name=nobody", "wrong password name=bob"] {
      try server.waitForErrors(containing: text)
    }
  }

  @Test func `login does not wait for ever for an answer, and others go on meanwhile`() throws {
    let server = try serve("login", "0.3")
    let silent = try server.connect()
    let halfway = try server.connect()
    try expect("name: ", from: halfway)
    try halfway.send("ada\nlove")
    #expect(try silent.receiveTextUntilEnd() == "name: no login: timeout\n")
    #expect(try halfway.receiveTextUntilEnd() == "password: no login: timeout\n")
    let gone = try server.connect()
    try expect("name: ", from: gone)
    gone.close()
    #expect(try logIn("ada", "lovelace", to: server).receiveLine() == "welcome, ada")
    #expect(!contains(server.errors, " error "))
  }

  // MARK: smtp

  /// Sends lines one after the other, and compares what each is answered.
  private func talk(_ client: TestClient, _ exchanges: [(line: String, reply: String)]) throws {
    for (line, reply) in exchanges {
      try client.send(line + "\r\n")
      #expect(try client.receiveLine() == reply + "\r", "to \(line)")
    }
  }

  private func openMail(_ server: MoonportProcess) throws -> TestClient {
    let client = try server.connect()
    #expect(try client.receiveLine() == "220 mail.sink ESMTP, nothing is delivered\r")
    return client
  }

  @Test func `smtp takes a mail from swaks and prints it as it was, dots and all`() throws {
    let server = try serve("smtp")
    let port = server.address.components(separatedBy: ":").last ?? ""
    var launch = Launch("/usr/bin/env", ["swaks", "--server", "127.0.0.1", "--port", port])
    launch.arguments += ["--from", "ada@example.org", "--to", "bob@example.org,cleo@example.org", "--ehlo", "tests"]
    launch.arguments += ["--data", "Subject: hello\\n\\n.\\n..two\\nlast"]
    let swaks = try ChildProcess(launch)
    #expect(try swaks.waitForExit() == .exited(0), "\(swaks.transcript)")
    try server.waitForOutput(
      containing: """
        mail from <ada@example.org> to <bob@example.org>, <cleo@example.org>, 34 bytes
        | Subject: hello
        |\(" ")
        | .
        | ..two
        | last

        """)
    #expect(contains(swaks.transcript, "250 2.0.0 printed"))
  }

  @Test func `smtp answers every command in its order, and says what is out of order`() throws {
    let server = try serve("smtp")
    let client = try openMail(server)
    try talk(
      client,
      [
        ("MAIL FROM:<a@b>", "503 5.5.1 say HELO or EHLO first"), ("HELO", "501 5.5.4 your name, please"),
        ("HELO me", "250 mail.sink"), ("RCPT TO:<a@b>", "503 5.5.1 say MAIL first"),
        ("data", "503 5.5.1 say MAIL and RCPT first"), ("mail from: <a@b> SIZE=100 BODY=8BITMIME", "250 2.1.0 ok"),
        ("MAIL FROM:<a@b>", "503 5.5.1 one mail at a time"), ("DATA", "503 5.5.1 say MAIL and RCPT first"),
        ("RSET", "250 2.0.0 ok"), ("MAIL FROM:a@b", "501 5.5.4 MAIL FROM:<address>"),
        ("MAIL FROM:<a@b> SIZE=1048577", "552 5.3.4 too big"), ("MAIL FROM:<>", "250 2.1.0 ok"),
        ("RCPT TO:<>", "501 5.5.4 RCPT TO:<address>"), ("NOOP", "250 2.0.0 ok"), ("noop  with words", "250 2.0.0 ok"),
        ("VRFY bob", "252 2.5.2 try it"), ("QUIT", "221 2.0.0 good bye"),
      ])
    #expect(try client.waitForEnd() == .closed)
  }

  @Test func `smtp ends with a client that makes one error after the other`() throws {
    let server = try serve("smtp")
    let client = try openMail(server)
    for _ in 0..<9 { try talk(client, [("HELLO?", "500 5.5.2 what? HELP helps")]) }
    try talk(client, [("", "500 5.5.2 what? HELP helps")])
    #expect(try client.receiveTextUntilEnd() == "421 4.7.0 too many errors\r\n")
  }

  @Test func `smtp takes commands and mails that come all at once, and two mails in one connection`() throws {
    let server = try serve("smtp")
    let client = try openMail(server)
    let mail = { (word: String) in
      "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\nDATA\r\nSubject: \(word)\r\n\r\n..\(word)\r\n.\r\n"
    }
    try client.send("EHLO me\r\n" + mail("one") + mail("two") + "QUIT\r\n")
    let replies = try client.receiveTextUntilEnd().components(separatedBy: "\r\n")
    #expect(replies.first == "250-mail.sink" && replies.contains("250-PIPELINING"))
    let codes = replies.dropFirst(6).map { $0.prefix(3) }
    #expect(codes == ["250", "250", "250", "354", "250", "250", "250", "250", "354", "250", "221", ""])
    for word in ["one", "two"] {
      try server.waitForOutput(
        containing: "mail from <a@b> to <c@d>, <e@f>, 22 bytes\n| Subject: \(word)\n| \n| .\(word)\n")
    }
  }

  @Test func `smtp refuses what is too big and too many, and goes on with the next mail`() throws {
    let server = try serve("smtp")
    let client = try openMail(server)
    try talk(client, [("HELO me", "250 mail.sink"), ("MAIL FROM:<a@b>", "250 2.1.0 ok")])
    for index in 0..<100 { try talk(client, [("RCPT TO:<\(index)@b>", "250 2.1.5 ok")]) }
    try talk(client, [("RCPT TO:<x@b>", "452 4.5.3 too many recipients")])
    try talk(client, [("DATA", "354 end with a line with a dot")])
    let line = String(repeating: "x", count: 998) + "\r\n"
    for _ in 0..<1_060 { try client.send(line) }
    try talk(client, [(".", "552 5.3.4 too big"), ("DATA", "503 5.5.1 say MAIL and RCPT first")])
    try talk(client, [("MAIL FROM:<a@b>", "250 2.1.0 ok"), ("RCPT TO:<c@d>", "250 2.1.5 ok")])
    try talk(client, [("DATA", "354 end with a line with a dot"), (".", "250 2.0.0 printed")])
    try server.waitForOutput(containing: "mail from <a@b> to <c@d>, 0 bytes\n")
    #expect(server.outputCount(of: "mail from") == 1)
  }

  @Test func `smtp does not wait for ever for a command, nor for the rest of a mail`() throws {
    let server = try serve("smtp", "0.3")
    let silent = try openMail(server)
    let halfway = try openMail(server)
    try halfway.send("HELO me\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nSubject: never\r\n")
    #expect(try silent.receiveTextUntilEnd() == "421 4.4.2 too slow\r\n")
    #expect(try halfway.receiveTextUntilEnd().hasSuffix("354 end with a line with a dot\r\n421 4.4.2 too slow\r\n"))
    #expect(!contains(server.output, "never"))
    #expect(!contains(server.errors, " error "))
  }

  // MARK: game

  private func join(_ world: String, _ name: String, _ server: MoonportProcess) throws -> TestClient {
    let client = try server.connect()
    #expect(try client.receiveLine() == "join WORLD NAME, go DX DY, say WORDS, who, quit")
    try client.send("join \(world) \(name)\n")
    while try client.receiveLine() != "\(name) entered" {}
    return client
  }

  /// The next places of `name` that `client` is told.
  private func places(_ count: Int, of name: String, seenBy client: TestClient) throws -> [[Double]] {
    var places: [[Double]] = []
    while places.count < count {
      let line = try client.receiveLine()
      guard line.hasPrefix("at ") else { continue }
      for part in line.dropFirst(3).components(separatedBy: ", ") where part.hasPrefix("\(name) ") {
        places.append(part.split(separator: " ").dropFirst().compactMap { Double($0) })
      }
    }
    return places
  }

  /// Reads until `line` comes; what else is said or done in the game meanwhile does not matter.
  private func wait(for line: String, from client: TestClient) throws {
    while try client.receiveLine() != line {}
  }

  @Test func `game shows everybody in a world each step of a player, from whichever worker`() throws {
    let server = try serve("game", workers: 2)
    let ada = try join("moon", "ada", server)
    let bob = try join("moon", "bob", server)
    try wait(for: "bob entered", from: ada)
    #expect(try places(1, of: "ada", seenBy: bob) == [[50, 50]])
    try ada.send("go 2 -4\n")
    let seen = try places(40, of: "ada", seenBy: bob)
    // Two units a second in twenty steps: each step is seen, and none twice. Rounded to tenths as they are shown.
    let begin = try #require(seen.firstIndex { $0 != [50, 50] })
    for (index, place) in seen[begin...].enumerated() {
      #expect(abs(place[0] - (50 + 0.1 * Double(index + 1))) < 0.06, "\(seen)")
      #expect(abs(place[1] - (50 - 0.2 * Double(index + 1))) < 0.06, "\(seen)")
    }
    try ada.send("go 1000 0\n")
    while try places(1, of: "ada", seenBy: bob)[0][0] < 100 {}
    #expect(try places(1, of: "ada", seenBy: bob)[0][0] == 100)
  }

  @Test func `game keeps worlds apart, and tells who comes, speaks and leaves`() throws {
    let server = try serve("game", workers: 2)
    let ada = try join("moon", "ada", server)
    let bob = try join("moon", "bob", server)
    let cleo = try join("mars", "cleo", server)
    try ada.send("say hello there\n")
    try wait(for: "ada says hello there", from: bob)
    try bob.send("who\n")
    try wait(for: "2 here", from: bob)
    bob.close()
    try wait(for: "bob left", from: ada)
    try ada.send("quit\n")
    #expect(try ada.waitForEnd() == .closed)
    try cleo.send("go 1 1\n")
    let lines = try cleo.receiveLines(30)
    #expect(lines.allSatisfy { $0.hasPrefix("at cleo ") }, "\(lines)")
  }

  @Test func `game refuses what it does not understand`() throws {
    let server = try serve("game")
    let client = try server.connect()
    _ = try client.receiveLine()
    for (line, answer) in [
      ("", "there are: join, go, say, who, quit"), ("fly", "there are: join, go, say, who, quit"),
      ("join", "join WORLD NAME"), ("join moon", "join WORLD NAME"),
      ("join moon abcdefghijklmnopq", "join WORLD NAME"), ("go 1 1", "join a world, then go DX DY"),
      ("say x", "join a world first"), ("who", "0 here"),
    ] { #expect(try client.ask(line) == answer) }
    try client.send("join moon ada\ngo x y\n")
    try wait(for: "join a world, then go DX DY", from: client)
    try client.send("go nan nan\n")
    try wait(for: "join a world, then go DX DY", from: client)
  }

  @Test func `game takes new code while its players go on`() throws {
    let folder = try TemporaryFolder()
    let text = try ProjectFiles.text("examples/game.lua")
    let server = try MoonportProcess(file: folder.write("game.lua", text), folder: folder)
    let ada = try join("moon", "ada", server)
    try ada.send("go 1 0\n")
    _ = try places(5, of: "ada", seenBy: ada)
    try folder.replace(
      "game.lua", text.replacingOccurrences(of: "ticks_per_second = 20", with: "ticks_per_second = 10"))
    #expect(try server.control("reload").status == .exited(0))
    try ada.send("say new code\n")
    try wait(for: "ada says new code", from: ada)
    let seen = try places(10, of: "ada", seenBy: ada).map { $0[0] }
    // It still moves, a tenth of a unit a step now, from where it was.
    #expect(seen[0] > 50 && seen[0] < 60)
    for (place, next) in zip(seen, seen.dropFirst()) { #expect(abs(next - place - 0.1) < 0.06, "\(seen)") }
  }
}
