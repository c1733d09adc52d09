// Random values packed and unpacked, and random and mutated bytes unpacked. MOONPORT_FUZZ_SECONDS sets how long (default 2),
// MOONPORT_SEED repeats one run.

import Glibc
import LuaRuntime
import TestSupport
import Testing

@Suite("Plain data under random input")
struct PlainDataFuzzTests {
  private static let secondsDefault = 2.0

  /// `pack` packs a random value that `seed` makes; `again` unpacks what there is, packs it and says whether both are the same.
  private static let script = """
    local function value(depth)
      local kind = math.random(depth > 6 and 5 or 8)
      if kind == 1 then return math.random(0) end
      if kind == 2 then return math.random(-70, 70) end
      if kind == 3 then return math.random() * 10 ^ math.random(-20, 20) end
      if kind == 4 then return math.random(2) == 1 end
      if kind == 5 then return string.char(math.random(0, 255)):rep(math.random(0, math.random(200))) end
      local t = {}
      for i = 1, math.random(0, 6) do t[i] = value(depth + 1) end
      if kind > 6 then for _ = 1, math.random(0, 6) do t[value(9)] = value(depth + 1) end end
      return t
    end
    local function same(a, b)
      if math.type(a) ~= math.type(b) then return false end
      if type(a) ~= "table" or type(b) ~= "table" then return a == b or (a ~= a and b ~= b) end
      for key, item in pairs(a) do if not same(item, b[key]) then return false end end
      for key in pairs(b) do if a[key] == nil then return false end end
      return true
    end
    return {
      pack = function(seed)
        math.randomseed(seed)
        local sent = { value(0), value(0) }
        native.pack(table.unpack(sent, 1, 2))
        return same(sent, { native.unpack() })
      end,
      again = function()
        local got = table.pack(native.unpack())
        native.pack(table.unpack(got, 1, got.n))
        local back = table.pack(native.unpack())
        return same(got, back)
      end,
    }
    """

  @Test("values come back the same, and bytes that nobody packed are an error or some values, within the memory limit")
  func fuzz() throws {
    let text = getenv("MOONPORT_FUZZ_SECONDS").map { String(cString: $0) }
    let seconds = text.flatMap(Double.init) ?? Self.secondsDefault
    var random = SeededGenerator()
    let memoryLimitBytes = 16 << 20
    let lua = try TestLua(Self.script, memoryLimitBytes: memoryLimitBytes)
    var packed = 0
    var refused = 0
    var taken = 0
    let end = ContinuousClock.now + .seconds(seconds)
    repeat {
      let seed = Int64.random(in: .min ... .max, using: &random)
      #expect(try lua.call("pack", LuaArguments(.integer(seed))) == "true", "seed \(seed)")
      packed += 1
      let data = try #require(lua.recorder.plain.last)
      for _ in 0..<8 {
        let bytes = random.damaged(data.bytes)
        lua.recorder.plain = [PlainData(bytes: bytes, isList: Bool.random(using: &random))]
        let outcome = lua.failure("again")
        switch outcome {
        case "returned true": taken += 1
        case _ where outcome.contains("damaged plain data") || outcome.contains("not enough memory"): refused += 1
        default: Issue.record("\(outcome) for \(bytes), seed \(random.seed)")
        }
      }
    } while ContinuousClock.now < end
    #expect(lua.lua.memoryBytes <= memoryLimitBytes)
    #expect(packed > 0 && refused > 0)
    print("plain data fuzz: seed \(random.seed), \(packed) packed, \(taken) damaged taken, \(refused) refused")
  }
}

extension SeededGenerator {
  /// The bytes with a few changes, cut short, or others altogether.
  fileprivate mutating func damaged(_ bytes: [UInt8]) -> [UInt8] {
    var bytes = bytes
    let interesting: [UInt8] = [0, 1, 2, 3, 4, 5, 6, 7, 0x7f, 0x80, 0xff]
    switch Int.random(in: 0..<8, using: &self) {
    case 0: return (0..<Int.random(in: 0...60, using: &self)).map { _ in interesting.randomElement(using: &self) ?? 0 }
    case 1: return self.bytes(Int.random(in: 0...60, using: &self))
    case 2: return Array(bytes.prefix(Int.random(in: 0...bytes.count, using: &self)))
    default: break
    }
    for _ in 0..<Int.random(in: 1...4, using: &self) where !bytes.isEmpty {
      let place = Int.random(in: 0..<bytes.count, using: &self)
      switch Int.random(in: 0..<4, using: &self) {
      case 0: bytes[place] = UInt8.random(in: .min ... .max, using: &self)
      case 1: bytes[place] = interesting.randomElement(using: &self) ?? 0
      case 2: bytes.remove(at: place)
      default: bytes.insert(interesting.randomElement(using: &self) ?? 0, at: place)
      }
    }
    return bytes
  }
}
