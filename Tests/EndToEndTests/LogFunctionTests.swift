// moonport.log on the built program: what its fields look like, in both formats, whatever a script or a client puts there.
//
// Must never know: anything but the program's command line, its streams and its sockets.

import Foundation
import TestSupport
import Testing

@Suite struct LogFunctionTests {
  /// The first line that is logged by this body of on_start, which has `text` from a client.
  private func logged(_ body: String, format: String) throws -> String {
    let server = try MoonportProcess.serving("function h.on_start()\n\(body)\nend") {
      $0.arguments = ["--log-format", format, "--log-level", "debug"]
    }
    try server.waitForErrors(containing: "MARK")
    #expect(server.child.errors.wait { $0.components(separatedBy: "MARK").last?.contains("\n") == true })
    return server.errors.components(separatedBy: "\n").first { $0.contains("MARK") } ?? ""
  }

  @Test func `fields keep their types, and tables are nested, in JSON`() throws {
    let line = try logged(
      """
      moonport.log.warn("MARK", {
        i = 1, n = 0.5, t = true, f = false, s = "7", [3] = "three", empty = {}, big = math.mininteger,
        nested = { list = { 1, { 2 }, "x" }, ["}"] = "brace", ["]"] = "bracket", mixed = { 1, a = 2 } },
        own = setmetatable({}, { __tostring = function() return "of its own" end }),
        nan = 0/0, inf = 1/0,
        many = table.move(setmetatable({}, { __index = function(_, i) return i end }), 1, 1500, 1, {}),
      })
      """, format: "json")
    let json = try JSON(parsing: line)
    #expect(json["level"].text == "warn" && json["message"].text == "MARK")
    #expect(json["i"].integer == 1 && json["n"].number == 0.5 && json["s"].text == "7" && json["3"].text == "three")
    #expect(json["t"].boolean == true && json["f"].boolean == false && json["empty"] == .object([]))
    #expect(json["big"].number == -9_223_372_036_854_775_808)
    #expect(json["nested"]["list"] == .array([.number(1), .array([.number(2)]), .string("x")]))
    #expect(json["nested"]["}"].text == "brace" && json["nested"]["]"].text == "bracket")
    #expect(json["nested"]["mixed"]["1"].integer == 1 && json["nested"]["mixed"]["a"].integer == 2)
    #expect(json["own"].text == "of its own")
    // As many as are shown, in their order.
    #expect(json["many"].elements.map(\.integer) == Array(1...64))
    #expect(json["nan"] == .null && json["inf"] == .null)
  }

  @Test func `fields stand in the order of their names in text, nested ones in JSON's notation`() throws {
    let line = try logged(
      #"moonport.log.debug("MARK", { c = 0.25, b = "two words", a = 1, d = { x = { true } }, e = "", time = "own" })"#,
      format: "text")
    #expect(line.hasSuffix(#" debug MARK a=1 b="two words" c=0.25 d="{\"x\":[true]}" e="" _time=own"#), "\(line)")
  }

  @Test(arguments: ["text", "json"]) func `no field can break out of its line or reach the terminal`(format: String)
    throws
  {
    let line = try logged(
      #"""
      local evil = "a\nb\r\27[31m\0\7\xff\u{202e}\"} key=value"
      moonport.log.error("MARK " .. evil, { [evil] = evil, nested = { [evil] = { evil } } })
      """#, format: format)
    #expect(line.utf8.allSatisfy { $0 >= 0x20 && $0 != 0x7f } && !line.contains("\u{202e}"), "\(line)")
    if format == "json" {
      let json = try JSON(parsing: line)
      #expect(json.keys.count == 5 && json["nested"].keys.count == 1)
    }
  }

  @Test func `tables that hold themselves, or too much, are cut`() throws {
    let own = try JSON(parsing: logged("local t = {} t.t = t moonport.log.info('MARK', t)", format: "json"))
    var depth = 0
    var inner = own
    while !inner["t"].keys.isEmpty {
      inner = inner["t"]
      depth += 1
    }
    #expect(depth > 3 && depth <= 8)

    let wide = try JSON(
      parsing: logged(
        "local t = {} for i = 1, 100000 do t[i] = t end t[7] = 'x' moonport.log.info('MARK', { wide = t, also = t })",
        format: "json"))
    #expect(wide["wide"] != .null)

    let many = try JSON(
      parsing: logged(
        "local t = {} for i = 1, 100 do t[('f%03d'):format(i)] = i end moonport.log.info('MARK', t)", format: "json"))
    #expect(many["f064"].integer == 64 && many["f065"] == .null && many["omitted"].integer == 36)
  }

  @Test func `an error in what makes a field text is the script's`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_message(conn)
        local bad = setmetatable({}, { __tostring = function() error("on purpose") end })
        conn:send((select(2, pcall(moonport.log.info, "x", { bad = bad })):gsub(".*: ", "")))
        conn:send(select(2, pcall(moonport.log.info, "x", { bad = setmetatable({}, { __tostring = function() return {} end }) })))
      end
      """)
    let client = try server.connect()
    #expect(try client.ask("x") == "on purpose")
    #expect(try client.receiveLine().hasSuffix("'__tostring' must return a string"))
  }

  @Test func `lines below the level are left out, those of all workers are whole`() throws {
    let server = try MoonportProcess.serving(
      """
      function h.on_start(worker)
        moonport.log.debug("not shown")
        for i = 1, 40 do moonport.log.warn("line", { worker = worker, number = i, padding = ("x"):rep(200) }) end
        print("done")
      end
      """, workers: 4)
    try eventually("all workers are done") { server.outputCount(of: "done\n") == 4 }
    // All of them fit into the pipe: a reader that is behind loses none.
    let padding = String(repeating: "x", count: 200)
    try eventually("all lines are there") { server.errors.components(separatedBy: " warn  line ").count == 161 }
    for worker in 1...4 {
      for number in 1...40 {
        #expect(contains(server.errors, " warn  line number=\(number) padding=\(padding) worker=\(worker)\n"))
      }
    }
    #expect(!contains(server.errors, "not shown"))
  }
}
