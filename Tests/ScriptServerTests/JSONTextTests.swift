import Foundation
import ScriptServer
import Testing

struct JSONTextTests {
  @Test("commas and colons come by themselves")
  func structure() {
    var json = JSONText()
    json.beginObject()
    json.member("a", 1)
    json.key("b")
    json.beginArray()
    json.number(-2)
    json.beginObject()
    json.endObject()
    json.beginArray()
    json.endArray()
    json.string("x")
    json.null()
    json.endArray()
    json.member("c", true)
    json.member("d", 0.5)
    json.member("e", "f")
    json.endObject()
    #expect(json.string == #"{"a":1,"b":[-2,{},[],"x",null],"c":true,"d":0.5,"e":"f"}"#)
  }

  @Test("numbers keep their value, and what is no number in JSON is null")
  func numbers() throws {
    var json = JSONText()
    json.beginArray()
    json.number(UInt64.max)
    json.number(Int64.min)
    for number in [0.1, 1e300, -.leastNonzeroMagnitude, 1e16, .infinity, -.infinity, .nan] { json.number(number) }
    json.endArray()
    #expect(json.string == "[18446744073709551615,-9223372036854775808,0.1,1e+300,-5e-324,1e+16,null,null,null]")
    _ = try JSONSerialization.jsonObject(with: Data(json.bytes))
  }

  @Test("any bytes make valid JSON of one line that another parser reads")
  func strings() throws {
    var generator = SystemRandomNumberGenerator()
    for round in 0..<500 {
      let bytes = (0..<(round % 40)).map { _ in UInt8.random(in: 0...255, using: &generator) }
      var json = JSONText()
      json.beginArray()
      bytes.withUnsafeBytes { json.string($0) }
      json.endArray()
      #expect(json.bytes.allSatisfy { $0 >= 0x20 && $0 != 0x7f })
      let parsed = try JSONSerialization.jsonObject(with: Data(json.bytes)) as? [String]
      #expect(parsed?.count == 1)
      if let valid = String(validating: bytes, as: UTF8.self) { #expect(Array(parsed![0].utf8) == Array(valid.utf8)) }
    }
  }

  @Test("line separators and controls are escaped, broken UTF-8 becomes U+FFFD, long strings are cut")
  func escapes() {
    var json = JSONText()
    json.string("\"\\\n\u{1b}\u{7f}\u{85}\u{2028}/é")
    #expect(json.string == #""\"\\\n\u001b\u007f\u0085\u2028/é""#)
    var broken = JSONText()
    ([0x61, 0xff, 0x62] as [UInt8]).withUnsafeBytes { broken.string($0) }
    #expect(broken.string == "\"a\u{fffd}b\"")
    var long = JSONText()
    Array("abcdef".utf8).withUnsafeBytes { long.string($0, limit: 2) }
    #expect(long.string == "\"ab… (4 bytes more)\"")
  }
}
