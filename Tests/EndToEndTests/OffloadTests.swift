// moonport.offload on the built program: what goes over and comes back, what fails and how, and from where it may be called.
//
// Must never know: anything but the program's command line, its streams and its sockets.

import Foundation
import TestSupport
import Testing

@Suite struct OffloadTests {
  /// A server whose folder has these modules.
  private func serving(
    _ body: String, _ modules: [String: String], workers: Int = 1, threads: Int = 2
  ) throws -> MoonportProcess {
    let folder = try TemporaryFolder()
    for (name, text) in modules { try folder.write(name, text) }
    return try MoonportProcess.serving(body, workers: workers, folder: folder) {
      $0.arguments = ["--offload-threads", "\(threads)"]
    }
  }

  /// A module that runs until there is a file "told" beside the script.
  private static let untilTold = """
    return function()
      local folder = arg[0]:match("^(.*)/")
      local file
      repeat file = io.open(folder .. "/told") until file
      file:close()
      return "told"
    end
    """

  @Test func `arguments and results cross as they are, several and none`() throws {
    let server = try serving(
      """
      local function show(...)
        local texts = table.pack(...)
        for i = 1, texts.n do texts[i] = math.type(texts[i]) or type(texts[i]) end
        return texts.n .. " " .. table.concat(texts, " ")
      end
      function h.on_message(conn, text)
        conn:send(show(moonport.offload("echo")))
        conn:send(show(moonport.offload("echo", nil)))
        conn:send(show(moonport.offload("echo", 1, 2.0, "three", true, nil, { 4 }, nil)))
        local sum, list = moonport.offload("parts.sum", { 1, 2, { x = 3 } })
        conn:send(sum, " ", list[1], " ", list.name)
        conn:send(#moonport.offload("echo", ("x"):rep(15 << 20)))
      end
      """,
      [
        "echo.lua": "return function(...) return ... end",
        "parts/sum.lua": """
        local add = require "parts.add"
        return function(t) return add(add(t[1], t[2]), t[3].x), { "one", name = "list" } end
        """,
        "parts/add.lua": "return function(a, b) return a + b end",
      ])
    let client = try server.connect()
    #expect(try client.ask("go") == "0 ")
    #expect(try client.receiveLine() == "1 nil")
    #expect(try client.receiveLine() == "7 integer float string boolean nil table nil")
    #expect(try client.receiveLine() == "6 one list")
    #expect(try client.receiveLine() == "\(15 << 20)")
  }

  @Test func `the worker serves others while the function runs`() throws {
    let server = try serving(
      """
      function h.on_message(conn, text)
        if text == "slow" then return conn:send(moonport.offload("until_told", "told")) end
        if text == "tell" then io.open("told", "w"):close() end
        conn:send(text)
      end
      """,
      [
        "until_told.lua": """
        return function(path)
          local file
          repeat file = io.open(path) until file
          file:close()
          return "done"
        end
        """
      ])
    let folder = server.folder
    let slow = try server.connect()
    let other = try server.connect()
    try server.replaceScript(
      """
      local moonport = require "moonport"
      moonport.listen { address = "127.0.0.1:0", codec = "line" }
      return {
        on_message = function(conn, text)
          if text == "slow" then return conn:send(moonport.offload("until_told", "\(folder.file("told"))")) end
          conn:send(text)
        end,
      }
      """)
    try server.done("reload")
    let again = try server.connect()
    try again.send("slow\n")
    try eventually("it runs") { try server.status()["offload"]["running"].integer == 1 }
    for index in 0..<20 {
      #expect(try slow.ask("a\(index)") == "a\(index)")
      #expect(try other.ask("b\(index)") == "b\(index)")
    }
    #expect(try again.tryReceive(for: 0) == nil)
    try folder.write("told", "")
    #expect(try again.receiveLine() == "done")
  }

  @Test(
    arguments: [
      (
        "fails",
        "fails.lua:3: on purpose\nstack traceback:\n\t[C]: in function 'error'\n\tfails.lua:3: in upvalue 'deep'"
      ),
      ("fails_by_table", "thing: 7\nstack traceback:"), ("fails_by_nil", "nil\nstack traceback:"),
      ("missing", "module 'missing' not found:\n\tno file 'missing.lua'"),
      ("wrong", "wrong.lua:1: "), ("broken", "broken.lua:1: at load"),
      ("parts", "module 'parts' must return a function to be offloaded, not a table"),
      ("nothing", "module 'nothing' must return a function to be offloaded, not true"),
      ("gives_function", "module 'gives_function': bad result #2 (list[1]: a function cannot be plain data)"),
      ("exits", "os.exit would end the server"), ("yields", "attempt to yield from outside a coroutine"),
      ("sends", "sends.lua:1: moonport.send cannot be called in an offloaded function, which runs on no worker"),
      ("sleeps", "sleeps.lua:1: moonport.sleep cannot be called in an offloaded function"),
      ("offloads", "offloads.lua:1: moonport.offload cannot be called in an offloaded function"),
      ("subscribes", "moonport.subscribe cannot be called in an offloaded function"),
      ("recurses", "stack overflow"),
    ]
  ) func `what goes wrong there comes back as nil and a message with traceback`(module: String, expected: String) throws
  {
    let server = try serving(
      """
      function h.on_message(conn, name)
        local result, problem = moonport.offload(name, 1)
        conn:send(tostring(result), " ", (tostring(problem):gsub("\\n", "|")))
      end
      """,
      [
        "fails.lua": """
        local function deep()
          local n = 1
          error("on purpose")
        end
        return function() deep() end
        """,
        "fails_by_table.lua":
          "return function() error(setmetatable({}, { __tostring = function() return 'thing: 7' end })) end",
        "fails_by_nil.lua": "return function() error() end",
        "wrong.lua": "return function( end", "broken.lua": "error('at load')", "parts.lua": "return {}",
        "nothing.lua": "",
        "gives_function.lua": "return function() return 1, { list = { print } } end",
        "exits.lua": "return function() os.exit(0) end", "yields.lua": "return function() coroutine.yield(1) end",
        "sends.lua": "return function() require 'moonport'.send(1, 'x') end",
        "sleeps.lua": "return function() require 'moonport'.sleep(1) end",
        "offloads.lua": "return function() require 'moonport'.offload('sends') end",
        "subscribes.lua": "local m = require 'moonport' return function() m.subscribe('c', print) end",
        "recurses.lua": "local function f(n) return 1 + f(n) end return f",
      ])
    let client = try server.connect()
    let answer = try client.ask(module).replacingOccurrences(of: server.folder.path + "/", with: "")
    #expect(answer.hasPrefix("nil ") && answer.contains(expected.replacingAll("\n", "|")), "\(answer)")
    #expect(!answer.contains("moonport:"), "\(answer)")
    // Its thread goes on.
    #expect(try client.ask(module).hasPrefix("nil "))
  }

  @Test func `an offloaded function has the script's arg, print, log and shared dictionaries, and no worker`() throws {
    let folder = try TemporaryFolder()
    try folder.write(
      "mod.lua",
      """
      local moonport = require "moonport"
      return function(key)
        print("printed", arg[0]:match("[^/]+$"), arg[1], moonport.worker.id, moonport.generation)
        moonport.log.warn("logged", { by = "offload" })
        moonport.shared("d"):incr("n", 5, 0)
        return moonport.shared("d"):get(key)
      end
      """)
    let server = try MoonportProcess.serving(
      """
      function h.on_message(conn)
        moonport.shared("d"):set("key", "value")
        conn:send(moonport.offload("mod", "key"))
        conn:send(moonport.shared("d"):get("n"))
      end
      """, folder: folder
    ) { $0.scriptArguments = ["first"] }
    let client = try server.connect()
    #expect(try client.ask("x") == "value")
    #expect(try client.receiveLine() == "5")
    try server.waitForOutput(containing: "printed\tmain.lua\tfirst\tnil\t1\n")
    try server.waitForErrors(containing: "logged by=offload")
  }

  @Test func `wrong use raises with function, argument and line`() throws {
    let server = try serving(
      """
      local cases = {
        function() moonport.offload() end,
        function() moonport.offload({}) end,
        function() moonport.offload("echo", 1, { a = print }) end,
        function() moonport.offload("echo", ("x"):rep(17 << 20)) end,
        function() coroutine.close(coroutine.create(print)) table.sort({ 1, 2 }, function() moonport.offload("echo") end) end,
      }
      function h.on_message(conn, text) conn:send(select(2, pcall(cases[tonumber(text)]))) end
      """, ["echo.lua": "return function(...) return ... end"])
    let client = try server.connect()
    for (index, text) in [
      ":6: bad argument #1 to 'offload' (string expected, got no value)",
      ":7: bad argument #1 to 'offload' (string expected, got table)",
      ":8: bad argument #3 to 'offload' (a: a function cannot be plain data)",
      ":9: bad argument #2 to 'offload' (more than 16 MiB of plain data)",
      ":10: offload cannot wait here",
    ].enumerated() {
      let answer = try client.ask("\(index + 1)")
      #expect(answer.contains("main.lua\(text)"), "\(answer)")
    }
  }

  @Test func `every handler that may wait may offload, also timers, tasks, subscriptions and nested coroutines`() throws
  {
    let server = try serving(
      """
      local function try(where, ...) print(where .. " " .. moonport.offload("echo", where)) return ... end
      function h.on_start() try("start") end
      function h.on_open(conn) try("open") end
      function h.on_close(conn) try("close") end
      function h.on_stop() print("stopping") try("stop") end
      function h.on_error(conn, message) try("error") end
      function h.on_message(conn)
        try("message")
        moonport.after(0, try, "timer")
        moonport.spawn(try, "task")
        moonport.subscribe("c", try)
        moonport.publish("c", "subscription")
        for value in coroutine.wrap(function() coroutine.yield(try("nested", 1)) end) do assert(value == 1) end
        assert(pcall(try, "pcall"))
        error("on purpose")
      end
      function h.on_save() return select(2, pcall(moonport.offload, "echo")) end
      function h.on_restore(message) print("save: " .. message) print("load: " .. loading) end
      loading = select(2, pcall(moonport.offload, "echo"))
      """, ["echo.lua": "return function(...) return ... end"], workers: 2)
    try eventually("both workers started") { server.outputCount(of: "start start\n") == 2 }
    let client = try server.connect()
    try client.send("go\n")
    for place in ["open", "message", "timer", "task", "subscription", "nested", "pcall", "error"] {
      try server.waitForOutput(containing: "\(place) \(place)\n")
    }
    client.close()
    try server.waitForOutput(containing: "close close\n")
    try server.done("reload")
    for place in ["save", "load"] { try server.waitForOutput(containing: "\(place): offload cannot wait here") }
    try server.done("stop")
    #expect(try server.waitForExit() == .exited(0))
    #expect(server.outputCount(of: "stopping\n") == 2)
  }

  @Test func `a caller that tries again at once while all are busy leaves others their turns`() throws {
    let server = try serving(
      """
      function h.on_message(conn, text)
        if text == "fill" then
          for _ = 1, 1025 do moonport.spawn(function() moonport.offload("until_told") end) end
        elseif text == "try" then
          conn:send("trying")
          local problem
          repeat problem = select(2, moonport.offload("until_told")) until problem ~= "busy"
        end
        conn:send(text)
      end
      """, ["until_told.lua": Self.untilTold], threads: 1)
    let (eager, other) = (try server.connect(), try server.connect())
    #expect(try eager.ask("fill") == "fill")
    try eventually("the queue is full") { try server.status()["offload"]["waiting"].integer == 1024 }
    #expect(try eager.ask("try") == "trying")
    for number in 1...20 { #expect(try other.ask("\(number)") == "\(number)") }
    try server.folder.write("told", "")
    #expect(try eager.receiveLine() == "try")
  }

  @Test
  func `a bounded queue: beyond it callers are told that all are busy, and a task that is cancelled never begins`()
    throws
  {
    let server = try serving(
      """
      local finished, busy, tasks = 0, 0, {}
      function h.on_message(conn, text)
        if text == "fill" then
          tasks[1] = moonport.spawn(function() print(moonport.offload("until_told")) end)
          for n = 1, 1030 do
            tasks[n + 1] = moonport.spawn(function()
              local result, problem = moonport.offload("print_once", n)
              if result then finished = finished + 1 end
              if problem == "busy" then busy = busy + 1 end
            end)
          end
        elseif text == "cancel" then
          for n = 2, 101 do tasks[n]:cancel() end
        end
        conn:send(finished .. " " .. busy)
      end
      """,
      [
        "until_told.lua": Self.untilTold,
        "print_once.lua": "return function(n) print('n=' .. n .. ';') return n end",
      ], threads: 1)
    let client = try server.connect()
    #expect(try client.ask("fill") == "0 0")
    try eventually("the queue is full") {
      let offload = try server.status()["offload"]
      return offload["running"].integer == 1 && offload["waiting"].integer == 1024
    }
    #expect(try client.ask("x") == "0 6")
    #expect(try client.ask("cancel") == "0 6")
    try eventually("the cancelled ones are gone") { try server.status()["offload"]["waiting"].integer == 924 }
    #expect(try server.status()["offload"]["refused"].integer == 6)
    #expect(try server.status()["offload"]["threads"].integer == 1)
    try server.folder.write("told", "")
    try eventually("the others have run") { try client.ask("x") == "924 6" }
    try server.waitForOutput(containing: "told\n")
    #expect(server.outputCount(of: "n=100;\n") == 0 && server.outputCount(of: "n=101;\n") == 1)
  }
}

extension String {
  fileprivate func replacingAll(_ part: Character, _ new: Character) -> String {
    String(map { $0 == part ? new : $0 })
  }
}
