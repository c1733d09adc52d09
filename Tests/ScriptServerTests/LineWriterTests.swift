import Glibc
import Synchronization
import TestSupport
import Testing

@testable import ScriptServer

struct LineWriterTests {
  private func write(_ text: String, to output: StandardOutput) {
    Array(text.utf8).withUnsafeBytes { output.write(line: $0) }
  }

  @Test("lines of many threads never mix, at any length")
  func threads() {
    let pipe = TestPipe()
    // Patience for a reader that has to share two cores with everything else.
    let output = LineWriter(descriptor: pipe.writing, patienceMilliseconds: 30_000)
    let done = Atomic<Int>(0)
    var text = ""
    func send(_ letter: String) {
      for round in 0..<300 {
        let line = Array(String(repeating: letter, count: round * 31 % 9001).utf8)
        line.withUnsafeBytes { _ = output.write($0) }
      }
      done.add(1, ordering: .relaxed)
    }
    withTestThread {
      send("a")
    } during: {
      withTestThread {
        send("b")
      } during: {
        while done.load(ordering: .relaxed) < 2 { text += pipe.drain() }
      }
    }
    text += pipe.drain()
    let lines = text.split(separator: "\n", omittingEmptySubsequences: false).dropLast()
    #expect(lines.count == 600)
    #expect(lines.allSatisfy { Set($0).count <= 1 })
    #expect(output.lostLines == 0)
  }

  @Test("a reader that went away costs lines, not the process")
  func brokenPipe() {
    let pipe = TestPipe()
    let output = StandardOutput(descriptor: pipe.writing)
    pipe.closeReading()
    write("x", to: output)
    write("y", to: output)
    #expect(output.lostLines == 2)
  }

  @Test("a terminal that nobody reads costs lines and no time, and the descriptor it shares stays as it was")
  func deafTerminal() throws {
    let (reading, terminal) = try makeTerminal()
    defer {
      close(terminal)
      close(reading)
    }
    let output = LineWriter(descriptor: terminal, patienceMilliseconds: 0)
    // As a line of the log: more than what a terminal has room for when it is called writable. Without an end, it would never come.
    let line = [UInt8](repeating: UInt8(ascii: "x"), count: 3000)
    for _ in 0..<200 { line.withUnsafeBytes { _ = output.write($0) } }
    #expect((1..<200).contains(output.lostLines))
    #expect(fcntl(terminal, F_GETFL) & O_NONBLOCK == 0)
  }

  @Test("a full disk and a closed descriptor cost lines, not the process")
  func fullDisk() {
    let full = open("/dev/full", O_WRONLY)
    defer { close(full) }
    let output = StandardOutput(descriptor: full)
    write("x", to: output)
    #expect(output.lostLines == 1)
    let closed = StandardOutput(descriptor: 1_000_000)
    write("x", to: closed)
    #expect(closed.lostLines == 1)
  }

  @Test(
    "a reader that is stuck costs lines, and the first line after it reads again is whole", arguments: [true, false])
  func stuck(isBlocking: Bool) {
    let pipe = TestPipe(isBlocking: isBlocking)
    let writer = LineWriter(descriptor: pipe.writing, patienceMilliseconds: 1)
    let filled = pipe.fill()
    for _ in 0..<1000 { Array("lost".utf8).withUnsafeBytes { _ = writer.write($0) } }
    #expect(writer.lostLines == 1000)
    #expect(pipe.drain().utf8.count == filled)
    #expect(Array("seen".utf8).withUnsafeBytes { writer.write($0) })
    #expect(pipe.drain() == "seen\n")
  }

  @Test("a line cut off in the middle does not swallow the next one")
  func cut() {
    let pipe = TestPipe()
    let writer = LineWriter(descriptor: pipe.writing, patienceMilliseconds: 0)
    let long = [UInt8](repeating: 0x61, count: 1 << 20)
    #expect(!long.withUnsafeBytes { writer.write($0) })
    #expect(!pipe.drain().isEmpty)
    #expect(Array("next".utf8).withUnsafeBytes { writer.write($0) })
    #expect(pipe.drain() == "\nnext\n")
    #expect(Array("last".utf8).withUnsafeBytes { writer.write($0) })
    #expect(pipe.drain() == "last\n")
    #expect(writer.lostLines == 1)
  }

  @Test("an empty line is a line")
  func empty() {
    let pipe = TestPipe()
    let output = StandardOutput(descriptor: pipe.writing)
    output.write(line: UnsafeRawBufferPointer(start: nil, count: 0))
    #expect(pipe.drain() == "\n")
  }
}
