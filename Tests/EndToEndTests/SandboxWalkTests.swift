// What a script can reach of Lua, in both sandboxes, against the lists in Tests/Sandbox; and what it cannot do with it.
//
// Must never know: how the sandbox is made.

import TestSupport
import Testing

@Suite struct SandboxWalkTests {
  /// Prints a line for each thing that can be reached from the environment by fields and metatables, sorted, by its shortest name.
  private static let walk = """
    local lines, seen = {}, {}
    local queue, first = { { "", _G } }, 1
    local function meet(name, value)
      local kind = type(value)
      lines[#lines + 1] = name .. " " .. kind
      if kind ~= "table" or seen[value] then return end
      seen[value] = true
      queue[#queue + 1] = { name .. ".", value }
    end
    seen[_G] = true
    local function names(t)
      local list = {}
      for key in next, t do list[#list + 1] = key end
      table.sort(list, function(a, b) return tostring(a) < tostring(b) end)
      return list
    end
    local function walk()
      while queue[first] do
        local prefix, t = queue[first][1], queue[first][2]
        first = first + 1
        for _, key in ipairs(names(t)) do meet(prefix .. tostring(key), rawget(t, key)) end
        local meta = getmetatable(t)
        if meta ~= nil then meet(prefix .. "<metatable>", meta) end
      end
      table.sort(lines)
      return table.concat(lines, "\\n")
    end
    meet("<metatable of a string>", getmetatable("") or nil)
    if io then meet("<metatable of a file>", getmetatable(io.stdout) or nil) end
    function h.on_message(conn) h, arg = nil, nil conn:write(walk(), "\\n.\\n") end
    """

  @Test(arguments: ["standard", "strict"])
  func `what a script can reach is what the written list says`(sandbox: String) throws {
    let server = try MoonportProcess.serving(SandboxWalkTests.walk) { $0.arguments = ["--sandbox", sandbox] }
    let client = try server.connect()
    try client.send("go\n")
    var found: [String] = []
    while true {
      let line = try client.receiveLine()
      if line == "." { break }
      if !line.hasPrefix("package.loaded.moonport.") { found.append(line) }
    }
    let listed = try ProjectFiles.text("Tests/Sandbox/\(sandbox).txt").split(separator: "\n").map(String.init).filter {
      !$0.hasPrefix("#")
    }
    let missing = listed.filter { !found.contains($0) }
    let new = found.filter { !listed.contains($0) }
    #expect(missing.isEmpty && new.isEmpty, "gone: \(missing)\nnew: \(new)")
  }

  private func load(_ body: String, _ sandbox: String, folder: TemporaryFolder? = nil) throws -> ToolResult {
    let folder = try folder ?? TemporaryFolder()
    let path = try folder.write("main.lua", body + "\nreturn {}")
    return try MoonportProcess.runTool(["check", path, "--sandbox", sandbox])
  }

  @Test(arguments: [
    ("os.exit()", "os.exit would end the server"), ("os.setlocale('C')", "os.setlocale would change"),
    ("debug.sethook()", "debug.sethook would take away"), ("debug.debug()", "debug.debug would stop the worker"),
    ("debug.getregistry()", "debug.getregistry holds what the server"),
    ("assert(load(string.dump(function() end)))", "attempt to load a binary chunk (mode is 't')"),
    ("assert(load(string.dump(function() end), 'x', 'b'))", "attempt to load a binary chunk"),
    ("assert(load('return 1', 'x', 'b'))", "attempt to load a text chunk"),
    (
      "local s = string.dump(function() end) assert(load(function() local r = s s = nil return r end, 'x', 'bt'))",
      "binary chunk"
    ),
    ("setmetatable({}, { __gc = print })", "a metatable must not have __gc"),
    ("getmetatable('').__index = nil", "it cannot be changed"),
    ("getmetatable('').__gc = print", "it cannot be changed"),
    ("getmetatable(io.stdout).__gc = print", "it cannot be changed"),
    ("collectgarbage('stop')", "collectgarbage: \"stop\" would"),
  ])
  func `what would harm the server is refused with a reason in the standard sandbox`(body: String, expected: String)
    throws
  {
    let result = try load("\n" + body, "standard")
    #expect(result.status == .exited(1))
    #expect(contains(result.errors, expected) && contains(result.errors, "main.lua:2:"), "\(result)")
  }

  @Test func `bytecode in a file is refused by loadfile, dofile and require`() throws {
    let folder = try TemporaryFolder()
    let body = """
      local path = arg[0]:gsub("[^/]*$", "compiled.lua")
      local file = assert(io.open(path, "wb"))
      file:write(string.dump(function() return 1 end))
      file:close()
      assert(not loadfile(path) and not loadfile(path, "b") and not loadfile(path, "bt", {}))
      assert(not pcall(dofile, path))
      assert(not pcall(require, "compiled"))
      """
    let result = try load(body, "standard", folder: folder)
    #expect(result.status == .exited(0), "\(result)")
  }

  @Test(arguments: [
    "io.open('x')", "os.execute('true')", "os.getenv('HOME')", "os.remove('x')", "package.loadlib('x', 'y')",
    "debug.traceback()",
    "loadfile('x')", "dofile('x')", "load('return 1', 'x', 't', {})", "require('socket')", "package.searchers[1]('x')",
    "package.searchpath('x', '?')", "require('../outside')", "require('..outside')", "require('/etc/passwd')",
    "require('io')",
    "require('debug')", "_G._G.io.open('x')", "string.gmatch.x.y()",
  ])
  func `nothing beyond the script's folder can be had in the strict sandbox`(body: String) throws {
    let result = try load(body, "strict")
    #expect(result.status == .exited(1), "\(result)")
    #expect(contains(result.errors, "main.lua:1:"), "\(result)")
  }

  @Test func `a strict script has its folder's modules, its own code as text, and the time`() throws {
    let folder = try TemporaryFolder()
    _ = try folder.write("part.lua", "return { answer = 42, has_io = io ~= nil }")
    let result = try load(
      """
      local part = require("part")
      assert(part.answer == 42 and not part.has_io)
      assert(load("return (...) + 1")(1) == 2)
      assert(os.time() > 0 and os.date() and os.clock() >= 0 and os.difftime(2, 1) == 1)
      assert(load("return io, os.execute, debug")() == nil)
      assert(("x"):rep(3) == "xxx" and #table.pack(1, 2) == 2 and math.max(1, 2) == 2 and utf8.char(65) == "A")
      assert(require("moonport") and package.loaded.string == string)
      """, "strict", folder: folder)
    #expect(result.status == .exited(0), "\(result)")
  }

  @Test func `what a script changes in the libraries ends with its generation, but for the methods of strings`() throws
  {
    let folder = try TemporaryFolder()
    func script(_ line: String) -> String {
      """
      local moonport = require "moonport"
      moonport.listen { address = "127.0.0.1:0", codec = "line" }
      \(line)
      return { on_message = function(conn) conn:send(tostring(math.own) .. tostring(table.insert) .. ("x"):twice()) end }
      """
    }
    let server = try MoonportProcess(
      script: script("math.own, table.insert = 1, nil function string.twice(s) return s .. s end"), folder: folder)
    let client = try server.connect()
    #expect(try client.ask("x") == "1nilxx")
    _ = try folder.write("main.lua", script(""))
    #expect(try server.control("reload").status == .exited(0))
    let answer = try client.ask("x")
    #expect(answer.hasPrefix("nilfunction") && answer.hasSuffix("xx"), "\(answer)")
  }
}
