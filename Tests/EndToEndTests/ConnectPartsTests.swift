// The pure parts of `moonport connect`: the line editor, the screen, harmless text, the quit filter, addresses.

import Testing
import moonport

/// A terminal of a few columns that understands what `TerminalScreen` uses, so that a test sees what a user would.
struct TinyTerminal {
  let columns: Int
  private(set) var rows: [[String]] = [[]]
  private var row = 0
  private var column = 0
  private var pending: [UInt8] = []

  init(columns: Int) {
    self.columns = columns
  }

  /// The rows without blanks at their ends.
  var text: [String] {
    rows.map { row in
      var line = row.joined()
      while line.last == " " { line.removeLast() }
      return line
    }
  }

  mutating func write(_ bytes: some Sequence<UInt8>) {
    pending += bytes
    while let used = step() { pending.removeFirst(used) }
  }

  /// Takes one character or sequence; nil when none is complete.
  private mutating func step() -> Int? {
    guard let first = pending.first else { return nil }
    if first == 0x1B {
      guard let end = pending.firstIndex(where: { (0x41...0x5A).contains($0) }) else { return nil }
      let number = Int(String(decoding: pending[2..<end], as: UTF8.self)) ?? 0
      control(pending[end], max(number, 1))
      return end + 1
    }
    let length = first < 0x80 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4
    guard pending.count >= length else { return nil }
    for scalar in String(decoding: pending[..<length], as: UTF8.self).unicodeScalars { put(scalar) }
    return length
  }

  private mutating func control(_ final: UInt8, _ count: Int) {
    switch final {
    case UInt8(ascii: "A"):
      row = max(0, row - count)
      column = min(column, columns - 1)
    case UInt8(ascii: "C"): column = min(columns - 1, column + count)
    default:
      rows.removeSubrange((row + 1)...)
      rows[row] = Array(rows[row].prefix(column))
    }
  }

  private mutating func put(_ scalar: Unicode.Scalar) {
    switch scalar {
    case "\r": column = 0
    case "\n": newLine()
    case "\t": column = min((column / 8 + 1) * 8, columns - 1)
    case "\u{7}": break
    default:
      let width = TerminalScreen.cells(of: scalar)
      if column + width > columns { newLine() }
      while rows[row].count < column + width { rows[row].append(" ") }
      rows[row][column] = String(scalar)
      if width == 2 { rows[row][column + 1] = "" }
      column += width
    }
  }

  private mutating func newLine() {
    row += 1
    column = 0
    if row == rows.count { rows.append([]) }
  }
}

@Suite("LineEditor")
struct LineEditorTests {
  private func feed(_ text: String) -> (actions: [LineEditor.Action], typed: String) {
    var editor = LineEditor()
    let actions = text.utf8.map { editor.feed($0) }
    return (actions, String(decoding: editor.typed, as: UTF8.self))
  }

  @Test("a line goes out exactly as typed, with its line end")
  func line() {
    #expect(feed("a b\tü \n").actions.last == .line(Array("a b\tü \n".utf8)))
    #expect(feed("\r").actions == [.line([0x0A])])
    #expect(feed("x\ny").typed == "y")
  }

  @Test("backspace takes back one character, however many bytes it has")
  func backspace() {
    #expect(feed("aü\u{7F}").typed == "a")
    #expect(feed("a日\u{8}").typed == "a")
    #expect(feed("a🌙\u{7F}").typed == "a")
    #expect(feed("a\u{7F}\u{7F}").typed == "")
    #expect(feed("\u{7F}").actions == [.none])
    var editor = LineEditor()
    for byte in [0x61, 0xFF, 0x80, 0x80] as [UInt8] { _ = editor.feed(byte) }
    _ = editor.feed(0x7F)
    #expect(editor.typed == [0x61, 0xFF, 0x80])
    // A stray continuation byte behind a whole character goes alone.
    var stray = LineEditor()
    for byte in Array("ü".utf8) + [0x80, 0x7F] { _ = stray.feed(byte) }
    #expect(stray.typed == Array("ü".utf8))
  }

  @Test("Ctrl-U takes back the line, Ctrl-W a word")
  func kill() {
    #expect(feed("one two\u{15}").typed == "")
    #expect(feed("one two  \u{17}").typed == "one ")
    #expect(feed("one\u{17}\u{17}").typed == "")
  }

  @Test("Ctrl-D ends the input on an empty line and sends an unfinished one as it is")
  func controlD() {
    #expect(feed("\u{4}").actions == [.endOfInput])
    #expect(feed("ab\u{4}").actions.last == .partial(Array("ab".utf8)))
    #expect(feed("ab\u{4}\u{4}").actions.last == .endOfInput)
  }

  @Test("arrow keys and other control keys type nothing, and a lone Escape takes nothing away")
  func escapes() {
    #expect(feed("a\u{1B}[Ab\u{1B}[1;5Cc\u{1B}OPd\u{1}\u{C}").typed == "abcd")
    #expect(feed("\u{1B}x").typed == "x")
    #expect(feed("\u{1B}[\n").actions.last == .line([0x0A]))
  }

  @Test("a line has a bound, and can still be sent or edited at it")
  func bound() {
    var editor = LineEditor()
    for _ in 0..<LineEditor.lineBytesMax { _ = editor.feed(0x61) }
    #expect(editor.feed(0x61) == .full)
    #expect(editor.feed(0x7F) == .changed)
    #expect(editor.feed(0x0A) == .line([UInt8](repeating: 0x61, count: LineEditor.lineBytesMax - 1) + [0x0A]))
  }

  @Test("no keys make it trap")
  func fuzz() {
    var editor = LineEditor()
    for _ in 0..<50_000 { _ = editor.feed([0x1B, 0x5B, 0x4F, 0x7F, 0x17, .random(in: 0...255)].randomElement()!) }
  }
}

@Suite("TerminalText")
struct TerminalTextTests {
  private func visible(_ bytes: [UInt8], split: Int = .max) -> String {
    var text = TerminalText()
    var output: [UInt8] = []
    var start = 0
    while start < bytes.count {
      let end = split < bytes.count - start ? start + split : bytes.count
      output += text.visible(bytes[start..<end])
      start = end
    }
    return String(decoding: output + text.flush(), as: UTF8.self)
  }

  @Test("printable text, line ends and tabs pass, however the bytes are split")
  func passes() {
    let text = "plain\tü 日本 🌙\nnext\n"
    for split in 1...5 { #expect(visible(Array(text.utf8), split: split) == text) }
    #expect(visible(Array("dos\r\nend\r\n".utf8), split: 4) == "dos\nend\n")
  }

  @Test("whatever could steer the terminal is shown instead", arguments: [1, 2, 100])
  func neutralised(split: Int) {
    #expect(visible(Array("\u{1B}[2J\u{7}\u{7F}\rx".utf8), split: split) == "^[[2J^G^?^Mx")
    #expect(visible(Array("\u{9B}31m".utf8), split: split) == "<U+009B>31m")
    #expect(visible(Array("\u{202E}abc".utf8), split: split) == "<U+202E>abc")
    #expect(visible([0x9B, 0x41, 0xFF, 0xC3, 0x41], split: split) == "\\x9BA\\xFF\\xC3A")
    #expect(visible([0xED, 0xA0, 0x80, 0xE6, 0x97], split: split) == "\\xED\\xA0\\x80\\xE6\\x97")
  }

  @Test("no bytes leave a control character in what is shown")
  func fuzz() {
    for _ in 0..<2000 {
      let bytes = (0..<32).map { _ in UInt8.random(in: 0...255) }
      for scalar in visible(bytes, split: 3).unicodeScalars {
        #expect(scalar == "\n" || scalar == "\t" || (scalar.value >= 0x20 && !(0x7F...0x9F).contains(scalar.value)))
      }
    }
  }
}

@Suite("TerminalScreen")
struct TerminalScreenTests {
  @Test("an arriving line appears above what is being typed")
  func arrival() {
    var screen = TerminalScreen()
    var terminal = TinyTerminal(columns: 40)
    terminal.write(screen.edited(Array("hel".utf8), columns: 40))
    terminal.write(screen.arrived(Array("Bob says hi\n".utf8), columns: 40))
    #expect(terminal.text == ["Bob says hi", "hel"])
    terminal.write(screen.edited(Array("hell".utf8), columns: 40))
    terminal.write(screen.edited(Array("he".utf8), columns: 40))
    #expect(terminal.text == ["Bob says hi", "he"])
    terminal.write(screen.entered())
    terminal.write(screen.arrived(Array("ok\n".utf8), columns: 40))
    #expect(terminal.text == ["Bob says hi", "he", "ok", ""])
  }

  @Test("a prompt without a line end stays before what is typed, and goes on where it ended")
  func prompt() {
    var screen = TerminalScreen()
    var terminal = TinyTerminal(columns: 40)
    terminal.write(screen.arrived(Array("log".utf8), columns: 40))
    terminal.write(screen.edited(Array("me".utf8), columns: 40))
    terminal.write(screen.arrived(Array("in: ".utf8), columns: 40))
    #expect(terminal.text == ["login: me"])
    terminal.write(screen.entered())
    #expect(terminal.text == ["login: me", ""])
  }

  @Test("whatever arrives and is typed, the screen shows the server's text and then the typed one", arguments: 1...40)
  func property(seed: Int) {
    var screen = TerminalScreen()
    let columns = 7 + seed % 5
    var terminal = TinyTerminal(columns: columns)
    var server = ""
    var typed = ""
    let pieces = ["a", "bc\n", "日本", "ü", "\n", "12345", "wide月\n", "x y", "1234567", "12345678901"]
    for _ in 0..<60 {
      switch Int.random(in: 0..<4) {
      case 0:
        let piece = pieces.randomElement()!
        server += piece
        terminal.write(screen.arrived(Array(piece.utf8), columns: columns))
      case 1 where !typed.isEmpty:
        typed.removeLast()
        terminal.write(screen.edited(Array(typed.utf8), columns: columns))
      case 2 where Int.random(in: 0..<4) == 0:
        server += typed + "\n"
        typed = ""
        terminal.write(screen.entered())
      default:
        typed += ["a", "日", "é", " "].randomElement()!
        terminal.write(screen.edited(Array(typed.utf8), columns: columns))
      }
      // The end of a full row and the start of the next are the same place for a reader.
      let shown = terminal.text.joined().filter { $0 != " " }
      #expect(shown == (server + typed).filter { $0 != "\n" && $0 != " " })
    }
  }
}

@Suite("QuitFilter")
struct QuitFilterTests {
  private func pass(_ text: String, split: Int) -> (sent: String, quits: Bool) {
    var filter = QuitFilter()
    var sent: [UInt8] = []
    let bytes = Array(text.utf8)
    for start in stride(from: 0, to: bytes.count, by: split) {
      if filter.pass(bytes[start..<min(start + split, bytes.count)], to: &sent) {
        return (String(decoding: sent, as: UTF8.self), true)
      }
    }
    let quits = filter.end(to: &sent)
    return (String(decoding: sent, as: UTF8.self), quits)
  }

  @Test("only a line that is exactly quit leaves; all else is passed on byte for byte", arguments: [1, 2, 3, 100])
  func lines(split: Int) {
    #expect(pass("a\nquit\nb\n", split: split) == ("a\n", true))
    #expect(pass("quit\r\nb", split: split) == ("", true))
    #expect(pass("quit", split: split) == ("", true))
    for text in ["quite\n", " quit\n", "quit \n", "qu\nit\n", "", "\n\n", "xquit\n", "qui", "QUIT\n", "quit\rx"] {
      #expect(pass(text, split: split) == (text, false))
    }
  }

  @Test("a beginning that is sent without a line end is let go, and its end is no new line")
  func release() {
    var filter = QuitFilter()
    var sent: [UInt8] = []
    #expect(!filter.pass(Array("qu".utf8), to: &sent))
    #expect(sent.isEmpty)
    filter.release(to: &sent)
    #expect(sent == Array("qu".utf8))
    #expect(!filter.pass(Array("quit\n".utf8), to: &sent))
    #expect(filter.pass(Array("quit\n".utf8), to: &sent))
  }
}

@Suite("AddressText")
struct AddressTextTests {
  @Test("the four forms of an address are understood")
  func forms() throws {
    #expect(try AddressText("127.0.0.1:6000") == .internet(host: "127.0.0.1", port: 6000))
    #expect(try AddressText("localhost:1") == .internet(host: "localhost", port: 1))
    #expect(try AddressText(":65535") == .internet(host: "", port: 65535))
    #expect(try AddressText("[::1]:0") == .internet(host: "::1", port: 0))
    #expect(try AddressText("unix:a b/c") == .unix(path: "a b/c"))
  }

  @Test(
    "every other text is an error that says what is wrong",
    arguments: [
      "", "6000", "localhost", "host:", "host:x", "host:65536", "host:-1", "host:+1", "::1:6000", "[::1]", "[::1]6000",
      "[::1:6000", "[1.2.3.4]:1", "unix:", "a b:1",
    ])
  func wrong(text: String) {
    let error = #expect(throws: AddressError.self) { try AddressText(text) }
    #expect(error?.message.isEmpty == false)
  }

  @Test("a Unix-domain path has at most 107 bytes")
  func unixPathLength() throws {
    _ = try AddressText("unix:" + String(repeating: "a", count: 107))
    #expect(throws: AddressError.self) { try AddressText("unix:" + String(repeating: "a", count: 108)) }
  }

  @Test("a client connects to no port 0")
  func portZero() throws {
    for text in ["localhost:1", "unix:x", "unix:@x"] { try AddressText(text).checkForConnecting() }
    #expect(throws: AddressError.self) { try AddressText(":0").checkForConnecting() }
  }

  @Test("the cores of an affinity mask are counted")
  func cores() {
    #expect(CoreCount.allowed(inStatus: "Name:\tx\nCpus_allowed:\tff,0000000f\nCpus_allowed_list:\t0-3\n") == 12)
    #expect(CoreCount.allowed(inStatus: "Name:\tx\n") == nil)
    #expect(CoreCount.usable >= 1)
  }
}
