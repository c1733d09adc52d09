import Codecs
import LuaRuntime
import Testing

@testable import ScriptServer

@Suite("The table of codecs")
struct CodecTableTests {
  @Test("built-in codecs with equal settings share an entry, others do not")
  func interning() {
    var table = CodecTable()
    let line = table.intern(.line(maxLength: 100))
    holds(table.intern(.raw) == CodecTable.raw && line != CodecTable.raw)
    holds(table.intern(.line(maxLength: 100)) == line)
    holds(table.intern(.line(maxLength: 101)) != line)
    holds(table.intern(.netstring(maxLength: 100)) != line)
    holds(table[line!].name == "line" && table.entries.count == 4)
  }

  @Test("a codec in Lua is freed with its last user, and its place is used again")
  func scripted() throws {
    let lua = LuaState(context: nil, library: noFunctions)!
    defer { lua.close() }
    func text() -> LuaReference { Array(repeating: UInt8(65), count: 10000).withUnsafeBytes { lua.makeString($0) } }
    lua.collectGarbage()
    let before = lua.memoryBytes
    var table = CodecTable()
    let index = table.insertScripted(decode: text(), encode: text(), maxLength: 10)!
    let other = table.insertScripted(decode: .none, encode: .none, maxLength: 10)!
    holds(index != other && table[index].name == "lua")
    table.retain(index)
    table.release(index, lua: lua)
    lua.collectGarbage()
    holds(lua.memoryBytes > before + 20000)
    table.release(index, lua: lua)
    lua.collectGarbage()
    holds(lua.memoryBytes < before + 10000)
    holds(table[index].name == "")
    // One release too many does no harm.
    table.release(index, lua: lua)
    holds(table.insertScripted(decode: .none, encode: .none, maxLength: 10) == index)
  }

  @Test(
    "a built-in codec is forgotten with its last user, but for raw: any number of settings may come one after the other"
  )
  func builtins() {
    let lua = LuaState(context: nil, library: noFunctions)!
    defer { lua.close() }
    var table = CodecTable()
    let line = table.intern(.line(maxLength: 100))!
    holds(table.intern(.line(maxLength: 100)) == line)
    table.retain(line)
    for length in 1...100_000 {
      guard let index = table.intern(.fixed(length: length)) else { return holds(false, "\(length)") }
      holds(index != line && index != CodecTable.raw)
      table.release(index, lua: lua)
    }
    holds(table.entries.count == 3)
    for _ in 0..<2 { table.release(line, lua: lua) }
    holds(table[line].name == "line")
    table.release(line, lua: lua)
    holds(table[line].name == "" && table.intern(.netstring(maxLength: 5)) == line)
    table.release(CodecTable.raw, lua: lua)
    holds(table.intern(.raw) == CodecTable.raw && table[CodecTable.raw].name == "raw")
  }
}
