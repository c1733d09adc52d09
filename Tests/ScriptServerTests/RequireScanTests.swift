import Testing

@testable import ScriptServer

struct RequireScanTests {
  private func names(_ source: String) -> [String] { RequireScan.names(in: Array(source.utf8)) }

  @Test("every literal form of require is found, each name once and in order")
  func forms() {
    #expect(names(#"local a = require "a" local b = require('b.c') require [[d]] require "a""#) == ["a", "b.c", "d"])
    #expect(names("local ok, m = pcall(require, 'optional')") == ["optional"])
    #expect(names("require\n  -- why\n  (\n'x' --[[ y ]] )") == ["x"])
    #expect(names("require[==[\nlong]==]") == ["long"])
  }

  @Test("modules to be offloaded are found, with and without arguments")
  func offloaded() {
    #expect(
      names(#"moonport.offload("a", 1) offload 'b' moonport.offload("c") pcall(moonport.offload, "d")"#) == [
        "a", "b", "c", "d",
      ])
    #expect(names(#"offload(name, "a") offload("a" .. b) offload2("c") require("d", 1)"#) == [])
  }

  @Test("comments and strings hide what they hold")
  func hidden() {
    #expect(names("-- require 'a'\n--[[ require 'b' ]] --[==[ ]] require 'c' ]==] require 'd'") == ["d"])
    #expect(names(#"print("require 'a'", 'x\'require "b"', [[ require 'c' ]]) require 'd'"#) == ["d"])
    #expect(names("local s = \"a\\\nrequire 'x'\" require 'y'") == ["y"])
  }

  @Test("names that are not literal, and other functions called require, are left alone")
  func others() {
    #expect(
      names(#"require(name) require("a" .. b) loader.require "c" loader:require "d" myrequire "e" require2 "f""#) == [])
    #expect(names(#"require "a\46b""#) == [])
  }

  @Test("sources that end in the middle of anything end the scan")
  func unfinished() {
    for source in [
      "require", "require(", "require('a'", "require 'a", "require [[a", "--[[", "\"\\", "[==", "require(",
    ] {
      #expect(names(source) == [])
    }
  }
}
