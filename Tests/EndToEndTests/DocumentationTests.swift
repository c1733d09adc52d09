// The pages tell the truth: their steps work as written, and what the program has is in them. Their examples are run by
// ReferenceExampleTests.
//
// Must never know: how the server works.

import Foundation
import TestSupport
import Testing

@Suite struct DocumentationTests {
  private static let reference = "docs/REFERENCE.md"

  // MARK: Modules

  @Test func `a module is found in the script's folder, on package.path, and as a C library`() throws {
    let folder = try TemporaryFolder()
    try folder.write("parts/near.lua", "return 'near'")
    try folder.write("elsewhere/far.lua", "return 'far'")
    let source = try folder.write(
      "native.c",
      """
      #include <lua5.4/lua.h>
      int luaopen_native(lua_State *L) { lua_pushstring(L, "native"); return 1; }
      """)
    try shell("gcc -shared -fPIC \(source) -o native.so", in: folder)
    let script = """
      local moonport = require "moonport"
      package.path = package.path .. ";" .. arg[1] .. "/elsewhere/?.lua"
      local near, far, native = require "parts.near", require "far", require "native"
      return { on_start = function() print(near, far, native) end }
      """
    let server = try MoonportProcess(script: script, folder: folder) {
      $0.listen = MoonportProcess.anyPort
      $0.scriptArguments = [folder.path]
      $0.environment = ["LUA_CPATH": folder.file("?.so")]
    }
    try server.waitForOutput(containing: "near\tfar\tnative\n")
  }

  // MARK: README

  @Test func `the live reload of the README works as written, line by line`() throws {
    let folder = try TemporaryFolder()
    let path = try folder.write("examples/chat.lua", ProjectFiles.text("examples/chat.lua"))
    let lines = try ProjectFiles.text("examples/chat.lua").split(separator: "\n", omittingEmptySubsequences: false)
      .count
    let server = try MoonportProcess(file: path, folder: folder)
    let anna = try server.connect()
    // The answer shows that the first one is in before the second comes.
    try eventually("the first client is in") { try server.control("broadcast", "hi").output == "sent to 1 client\n" }
    while try anna.receiveLine() != "hi" {}
    let bert = try server.connect()
    #expect(try anna.receiveLine() == "\(bert.localAddress) entered")

    var steps = try ProjectFiles.blocks("sh", in: "README.md").flatMap { $0.text.split(separator: "\n").map(command) }
    steps.removeAll { !$0.hasPrefix("sed ") && !$0.hasPrefix("echo ") && !["reload", "rollback"].contains($0) }
    #expect(steps.count == 5, "the README has other steps now: \(steps)")
    let outcomes: [(status: Int32, mark: String)] = [(0, ""), (0, "> "), (0, ""), (0, ""), (1, "")]
    for (step, outcome) in zip(steps, outcomes) {
      if step.contains(" ") {
        try shell(step, in: folder)
      } else {
        let result = try server.control(step)
        #expect(result.status == .exited(outcome.status), "\(step): \(result)")
        if outcome.status == 1 { #expect(result.errors.contains("chat.lua:\(lines):"), "\(result)") }
      }
      try bert.send("well\n")
      #expect(try anna.receiveLine() == "\(outcome.mark)well", "after \(step)")
    }
  }

  @Test func `the first script of the README works, and with --watch saving is enough`() throws {
    let folder = try TemporaryFolder()
    let script = try #require(ProjectFiles.blocks("lua", in: "README.md").first?.text)
    let server = try MoonportProcess(file: folder.write("hello.lua", script), folder: folder) {
      $0.arguments = ["--watch"]
    }
    let client = try server.connect()
    #expect(try client.receiveLine() == "Who is there?")
    try client.send("Ada\n")
    #expect(try client.receiveLine() == "Hello Ada, that was your line 1")
    try folder.write("hello.lua", script.replacingOccurrences(of: "Hello", with: "Good day"))
    try server.waitForErrors(containing: "is live")
    try client.send("Ada\n")
    #expect(try client.receiveLine() == "Good day Ada, that was your line 2")
  }

  /// A line of a shell block without its remark; the program's commands without `scripts/run`.
  private func command(_ line: Substring) -> String {
    let text = line.components(separatedBy: " #")[0].trimmingCharacters(in: .whitespaces)
    return text.hasPrefix("scripts/run ") ? String(text.dropFirst("scripts/run ".count)) : text
  }

  private func shell(_ command: String, in folder: TemporaryFolder) throws {
    var launch = Launch("/bin/sh", ["-c", command])
    launch.workingFolder = folder.path
    let child = try ChildProcess(launch)
    let status = try child.waitForExit()
    #expect(status == .exited(0), "\(command): \(child.transcript)")
  }

  @Test(arguments: [
    "README.md", "docs/REFERENCE.md", "docs/ARCHITECTURE.md", "docs/COMPLETION-IO.md", "docs/PERFORMANCE.md",
    "CHANGELOG.md",
  ])
  func `links of a page lead to files that exist`(page: String) throws {
    let folder = (page as NSString).deletingLastPathComponent
    for part in try ProjectFiles.text(page).components(separatedBy: "](").dropFirst() {
      let target = part.components(separatedBy: ")")[0].components(separatedBy: "#")[0]
      if target.isEmpty || target.hasPrefix("http") { continue }
      let path = ProjectFiles.path("\(folder.isEmpty ? "" : folder + "/")\(target)")
      #expect(FileManager.default.fileExists(atPath: path), "\(page) links to \(target)")
    }
  }

  // MARK: Completeness

  @Test func `the architecture page names every file of Sources, and no file or bound that does not exist`() throws {
    let page = try ProjectFiles.text("docs/ARCHITECTURE.md")
    let paths = try FileManager.default.subpathsOfDirectory(atPath: ProjectFiles.path("Sources"))
    let sources = paths.filter { $0.hasSuffix(".swift") || $0.hasSuffix(".c") || $0.hasSuffix(".lua") }
    #expect(sources.count > 100)
    let commands = [
      "Broadcast", "Check", "Connections", "Drain", "Kick", "Reload", "Rollback", "Run", "Status", "Stop",
    ]
    for path in sources {
      let name = ((path as NSString).lastPathComponent as NSString).deletingPathExtension
      if path.hasPrefix("moonport/"), commands.contains(name) { continue }
      let part =
        name.split(separator: "+").count == 2 && name != "Worker+Reload" ? "+" + name.split(separator: "+")[1] : name
      #expect(page.contains(part), "\(path) is not on the page")
    }
    for name in matches(#"`([\w/+]+\.(?:swift|c|lua|h))`"#, in: page) {
      #expect(paths.contains { $0 == name || $0.hasSuffix("/" + name) || $0.hasSuffix(name) }, "there is no \(name)")
    }
    let code = try sources.map { try ProjectFiles.text("Sources/\($0)") }.joined(separator: "\n")
    let bounds = matches(#"`([a-z]\w+(?:Max|Nanoseconds|Descriptors|Bytes|Default|Allowed))`"#, in: page)
    #expect(bounds.count > 20)
    for name in bounds { #expect(contains(code, " \(name)"), "there is no \(name)") }
  }

  @Test func `the reference has every function, method, handler and option that scripts can use`() throws {
    let page = try ProjectFiles.text(DocumentationTests.reference)
    let preludeFolder = "Sources/ScriptServer/Prelude"
    let prelude = try FileManager.default.contentsOfDirectory(atPath: ProjectFiles.path(preludeFolder)).sorted()
      .map { try ProjectFiles.text("\(preludeFolder)/\($0)") }.joined(separator: "\n")
    var methods = matches(#"function connection\.(\w+)"#, in: prelude)
    let folder = "Sources/ScriptServer/Interface"
    for name in try FileManager.default.contentsOfDirectory(atPath: ProjectFiles.path(folder)) {
      methods += matches(#""connection:(\w+)""#, in: try ProjectFiles.text("\(folder)/\(name)"))
    }
    #expect(methods.count >= 14)
    for method in methods { #expect(page.contains("conn:\(method)("), "conn:\(method) is missing") }
    let dictionaries = try ProjectFiles.text("\(folder)/SharedFunctions.swift")
    let ofDictionaries = matches(#""shared:(\w+)""#, in: dictionaries)
    #expect(ofDictionaries.count >= 20)
    for method in ofDictionaries {
      #expect(page.contains("dict:\(method)(") || page.contains("`\(method)`"), "dict:\(method)")
    }

    let table = try #require(matches(#"(?s)local function make_moonport.*?return \{(.*?)\n  \}"#, in: prelude).first)
    let functions = matches(#"(?m)^    (\w+) ="#, in: table)
    #expect(functions.count >= 12)
    for name in functions { #expect(page.contains("moonport.\(name)"), "moonport.\(name) is missing") }

    for list in ["listen_options", "output_options"] {
      let names = matches(#"(\w+) = ""#, in: try #require(matches("(?s)\(list) = \\{(.*?)\\}", in: prelude).first))
      #expect(names.count >= 4)
      for name in names { #expect(page.contains("| `\(name)` |"), "the option \(name) is missing") }
    }
    let handlers = matches(#""(on_\w+)""#, in: prelude)
    #expect(handlers.count >= 10)
    for name in handlers { #expect(page.contains("`\(name)("), "the handler \(name) is missing") }
  }

  @Test func `the reference has every key of the status`() throws {
    let page = try ProjectFiles.text(DocumentationTests.reference)
    let server = try MoonportProcess(script: "return {}")
    #expect(try server.control("reload").status == .exited(0))
    let keys = Set(matches(#""(\w+)":"#, in: try server.control("status", "--json").output))
    #expect(keys.count > 20)
    for key in keys { #expect(page.contains("`\(key)`"), "the key \(key) is missing") }
  }

  @Test func `the reference has every command and every option`() throws {
    let page = try ProjectFiles.text(DocumentationTests.reference)
    let overview = try MoonportProcess.runTool(["--help"]).output
    let commands = matches(#"(?m)^  ([a-z]+) {2,}[A-Z]"#, in: overview)
    #expect(commands.count >= 10)
    for command in commands {
      #expect(page.contains("`moonport \(command)"), "the command \(command) is missing")
      let help = try MoonportProcess.runTool([command, "--help"]).output
      for option in Set(matches(#"(--[a-z-]+)"#, in: help)).subtracting(["--help", "--"]) {
        #expect(page.contains("`\(option)") || page.contains("[\(option)") || page.contains(" \(option)"), "\(option)")
      }
    }
  }

  /// What the first group of the pattern matches, wherever it does.
  private func matches(_ pattern: String, in text: String) -> [String] {
    guard let expression = try? NSRegularExpression(pattern: pattern) else { return [] }
    let whole = NSRange(text.startIndex..., in: text)
    return expression.matches(in: text, range: whole).compactMap { match in
      Range(match.range(at: 1), in: text).map { String(text[$0]) }
    }
  }
}
