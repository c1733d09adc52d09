import Testing

@testable import ScriptServer

struct ContentHashTests {
  @Test("the sums are those of FNV-1a's published test vectors")
  func vectors() {
    #expect(ContentHash.of([]) == 0xcbf2_9ce4_8422_2325)
    #expect(ContentHash.of(Array("a".utf8)) == 0xaf63_dc4c_8601_ec8c)
    #expect(ContentHash.of(Array("foobar".utf8)) == 0x8594_4171_f739_67e8)
  }

  @Test("parts do not run together")
  func parts() {
    var one = ContentHash()
    one.update(part: "ab".utf8)
    one.update(part: "c".utf8)
    var two = ContentHash()
    two.update(part: "a".utf8)
    two.update(part: "bc".utf8)
    #expect(one.value != two.value)
    #expect(one.text.utf8.count == 16)
  }
}
