import Glibc
import ScriptServer
import Synchronization
import Testing

struct SnapshotTests {
  private let folder = TemporaryFolder()

  private func read(_ name: String = "main.lua", number: Int = 1) throws -> Snapshot {
    try Snapshot.read(script: folder.path(name), number: number)
  }

  private func text(_ file: SourceFile?) -> String? { file.map { String(decoding: $0.bytes, as: UTF8.self) } }

  private func reason(_ body: () throws -> Void) -> SnapshotError.Reason? {
    do {
      try body()
      return nil
    } catch {
      return (error as? SnapshotError)?.reason
    }
  }

  @Test("the script and all modules it names, directly or through others, are in the snapshot")
  func follows() throws {
    folder.makeFolder("lib")
    folder.makeFolder("pack")
    folder.write("main.lua", "require 'lib.a' require 'pack' require 'socket'")
    folder.write("lib/a.lua", "require 'b'")
    folder.write("b.lua", "require 'main'")
    folder.write("pack/init.lua", "")
    folder.write("unused.lua", "")
    let snapshot = try read(number: 7)
    #expect(snapshot.number == 7)
    #expect(snapshot.files.map(\.path) == ["b.lua", "lib/a.lua", "main.lua", "pack/init.lua"].map(folder.path))
    #expect(snapshot.scriptPath == folder.path("main.lua"))
    #expect(snapshot.folder == folder.path)
    #expect(Set(snapshot.watchSet.missing) == Set(["pack.lua", "socket.lua", "socket/init.lua"].map(folder.path)))
    #expect(snapshot.searchedPaths(for: "x.y") == ["x/y.lua", "x/y/init.lua"].map(folder.path))
  }

  @Test("a file that somebody has open for writing keeps changing, unless the writer has been silent")
  func isBeingWritten() throws {
    for name in ["main.lua", "part.lua"] {
      folder.write("main.lua", "require 'part'")
      folder.write("part.lua", "return 1")
      let writer = open(folder.path(name), O_WRONLY | O_CLOEXEC)
      // By its time the file was changed just now, however long the reading takes; then an hour ago.
      try #require(changeTime(of: name, by: 3600) == 0)
      #expect(reason { _ = try read() } == .keepsChanging)
      do {
        _ = try read()
      } catch {
        #expect("\(error)".hasPrefix("\(folder.path(name)): kept changing while it was read"), "\(error)")
        // With --watch the server reloads by itself.
        #expect(!"\(error)".contains("again"), "\(error)")
      }
      try #require(changeTime(of: name, by: -3600) == 0)
      #expect(text(try read().main) == "require 'part'")
      try #require(changeTime(of: name, by: 3600) == 0)
      close(writer)
      #expect(text(try read().main) == "require 'part'")
    }
  }

  private func changeTime(of name: String, by seconds: Int) -> CInt {
    var times = [timeval(), timeval()]
    for index in times.indices { times[index].tv_sec = time(nil) + seconds }
    return utimes(folder.path(name), times)
  }

  @Test("a module keeps the bytes it had when it was first read, absence included")
  func keeps() throws {
    folder.write("main.lua", "require 'early'")
    folder.write("early.lua", "old")
    folder.write("late.lua", "old")
    let snapshot = try read()
    folder.write("early.lua", "new")
    #expect(text(try snapshot.module("early")) == "old")
    let revision = snapshot.revision
    #expect(text(try snapshot.module("late")) == "old")
    #expect(snapshot.revision > revision)
    folder.write("late.lua", "new")
    #expect(text(try snapshot.module("late")) == "old")
    #expect(try snapshot.module("absent") == nil)
    folder.write("absent.lua", "here")
    #expect(try snapshot.module("absent") == nil)
    #expect(try read().hash != snapshot.hash)
  }

  @Test("a name that would lead out of the folder is not found")
  func escapes() throws {
    folder.makeFolder("in")
    folder.write("out.lua", "secret")
    folder.write("in/main.lua", "")
    let snapshot = try read("in/main.lua")
    for name in [
      "..out", "../out", "...out", folder.path("out"), "", ".", "/", "a\0b", "a..b",
      String(repeating: "x", count: 5000),
    ] {
      #expect(try snapshot.module(name) == nil)
    }
    #expect(snapshot.watchSet.missing.isEmpty)
  }

  @Test("the hash names the content: not the place, not the time, not the number")
  func hashes() throws {
    folder.makeFolder("one")
    folder.makeFolder("two")
    for place in ["one", "two"] {
      folder.write("\(place)/main.lua", "require 'a'")
      folder.write("\(place)/a.lua", "return 1")
    }
    let one = try read("one/main.lua", number: 1)
    #expect(try read("two/main.lua", number: 2).hash == one.hash)
    #expect(one.hash.utf8.count == 16)
    #expect(one.hash.utf8.allSatisfy { ($0 >= 0x30 && $0 <= 0x39) || ($0 >= 0x61 && $0 <= 0x66) })
    folder.write("two/a.lua", "return 2")
    #expect(try read("two/main.lua").hash != one.hash)
  }

  @Test("display names are what the user typed")
  func displays() throws {
    folder.makeFolder("lib")
    folder.write("main.lua", "require 'lib.a'")
    folder.write("lib/a.lua", "")
    #expect(try read().main.displayName == folder.path("main.lua"))
    #expect(try read().module("lib.a")?.displayName == folder.path("lib/a.lua"))
    // From the root on, so that the test need not change the process' folder.
    let current = try #require(getcwd(nil, 0))
    defer { free(current) }
    let up = String(cString: current).split(separator: "/").map { _ in "../" }.joined()
    let typed = up + folder.path("main.lua").dropFirst()
    let snapshot = try Snapshot.read(script: typed, number: 1)
    #expect(snapshot.main.displayName == typed)
    #expect(snapshot.scriptPath == String(cString: current) + "/" + typed)
    #expect(snapshot.searchedPaths(for: "b").first == up + folder.path("b.lua").dropFirst())
  }

  @Test("a byte order mark and a first line with # are left out, and line numbers stay")
  func preamble() throws {
    folder.write("main.lua", "\u{feff}#!/usr/bin/lua\nprint(1)")
    #expect(text(try read().main) == "\nprint(1)")
    folder.write("main.lua", "# only this line")
    #expect(text(try read().main) == "")
    folder.write("main.lua", "print '#'\n# no")
    #expect(text(try read().main) == "print '#'\n# no")
  }

  @Test("what cannot be a script is refused with what, where and what to do")
  func refusals() throws {
    folder.makeFolder("d.lua")
    folder.write("binary.lua", "#!x\n\u{1b}LuaS")
    folder.write("chunk.lua", "\u{1b}LuaS")
    mkfifo(folder.path("pipe.lua"), 0o600)
    let large = folder.openForWriting("large.lua")
    ftruncate(large, 17 << 20)
    close(large)
    #expect(reason { _ = try read("none.lua") } == .noSuchFile)
    #expect(reason { _ = try read("chunk.lua/x") } == .noSuchFile)
    #expect(reason { _ = try Snapshot.read(script: "", number: 1) } == .noSuchFile)
    #expect(reason { _ = try Snapshot.read(script: folder.path("chunk.lua") + "\0", number: 1) } == .noSuchFile)
    #expect(reason { _ = try read("d.lua") } == .isDirectory)
    #expect(reason { _ = try read("d.lua/") } == .isDirectory)
    #expect(reason { _ = try read("pipe.lua") } == .notRegularFile)
    #expect(reason { _ = try read("large.lua") } == .fileTooLarge(byteCount: 17 << 20))
    #expect(reason { _ = try read("chunk.lua") } == .binaryChunk)
    #expect(reason { _ = try read("binary.lua") } == .binaryChunk)
    do {
      _ = try read("none.lua")
    } catch {
      #expect((error as? SnapshotError)?.watchSet.missing == [folder.path("none.lua")])
      #expect("\(error)" == folder.path("none.lua") + ": no such file; check the path of the script")
    }
  }

  @Test("a module that cannot be read fails where it is required, not the whole snapshot, and can be repaired")
  func brokenModule() throws {
    folder.write("main.lua", "if never then require 'bad' end")
    folder.write("bad.lua", "\u{1b}Lua")
    let snapshot = try read()
    #expect(reason { _ = try snapshot.module("bad") } == .binaryChunk)
    #expect(snapshot.watchSet.unreadable == [folder.path("bad.lua")])
    folder.write("bad.lua", "good")
    #expect(text(try snapshot.module("bad")) == "good")
  }

  @Test("symbolic links are followed and the file keeps the name it was asked by")
  func links() throws {
    folder.makeFolder("r1")
    folder.write("r1/main.lua", "require 'm'")
    folder.write("r1/m.lua", "return 1")
    folder.link("current", to: "r1")
    let snapshot = try read("current/main.lua")
    #expect(snapshot.files.map(\.path) == ["current/m.lua", "current/main.lua"].map(folder.path))
  }

  @Test("files rewritten all the time never mix: both have the same version in every snapshot")
  func neverMixes() throws {
    let stop = Atomic<Bool>(false)
    folder.makeFolder("v0")
    folder.makeFolder("v1")
    for version in 0...1 {
      folder.write("v\(version)/main.lua", "require 'm' -- \(version)")
      folder.write("v\(version)/m.lua", "-- \(version)")
    }
    folder.link("current", to: "v0")
    try withTestThread {
      var version = 0
      while !stop.load(ordering: .relaxed) {
        version = 1 - version
        folder.link("next", to: "v\(version)")
        folder.rename("next", to: "current")
        usleep(500)
      }
    } during: {
      defer { stop.store(true, ordering: .relaxed) }
      var complete = 0
      for _ in 0..<300 where complete < 20 {
        guard let snapshot = try? read("current/main.lua") else { continue }
        complete += 1
        let module = try snapshot.module("m")
        #expect(text(snapshot.main)?.last == text(module)?.last)
      }
      #expect(complete > 0)
    }
  }

  @Test("threads that ask for one module at the same time get the same bytes")
  func threads() throws {
    folder.write("main.lua", "")
    let snapshot = try read()
    folder.write("m.lua", "0")
    let answers = Atomic<Int>(0)
    let stop = Atomic<Bool>(false)
    try withTestThread {
      var round = 0
      while !stop.load(ordering: .relaxed) {
        round += 1
        folder.write("next", "\(round)")
        folder.rename("next", to: "m.lua")
      }
    } during: {
      let first = Atomic<Int>(-1)
      try withTestThread {
        first.store(Int(text(try? snapshot.module("m")) ?? "") ?? -2, ordering: .relaxed)
      } during: {
        let mine = Int(text(try snapshot.module("m")) ?? "") ?? -3
        answers.store(mine, ordering: .relaxed)
      }
      stop.store(true, ordering: .relaxed)
      #expect(first.load(ordering: .relaxed) == answers.load(ordering: .relaxed))
    }
  }
}
