import Foundation
import Logging
import Testing

@testable import ScriptServer

struct LogTests {
  private let pipe = TestPipe()

  private func time(_ milliseconds: UInt64) -> LogTime {
    // 2026-11-21T10:00:00Z.
    LogTime(
      wallSeconds: 1_795_255_200 + Int(milliseconds / 1000),
      wallNanoseconds: Int(milliseconds % 1000) * 1_000_000 + 999_999,
      monotonicNanoseconds: 5_000_000_000 + milliseconds * 1_000_000)
  }

  private func sink(_ format: LogFormat = .text) -> LogSink { LogSink(descriptor: pipe.writing, format: format) }

  private func log(
    _ sink: LogSink, _ message: String, _ metadata: Logger.Metadata = [:], level: Logger.Level = .info,
    label: String = "test", at milliseconds: UInt64 = 123
  ) {
    sink.log(label: label, level: level, message: message, metadata: metadata, time: time(milliseconds))
  }

  @Test("a line of text has time, level, message and its fields in order")
  func text() {
    let sink = sink()
    log(sink, "listening", ["port": "6000", "address": "127.0.0.1", "n": .stringConvertible(3)])
    log(sink, "odd", ["empty": "", "two words": "a \"b\" \\ c", "list": ["1", ["k": "v"]]], level: .warning)
    log(sink, "worse", level: .error)
    #expect(
      pipe.lines() == [
        "2026-11-21T10:00:00.123Z info  listening address=127.0.0.1 n=3 port=6000",
        #"2026-11-21T10:00:00.123Z warn  odd empty="" list="[\"1\",{\"k\":\"v\"}]" "two words"="a \"b\" \\ c""#,
        "2026-11-21T10:00:00.123Z error worse",
      ])
  }

  @Test("a line of JSON is an object with time, level, message and its fields")
  func json() throws {
    let sink = sink(.json)
    log(sink, "a\"b\n", ["n": .stringConvertible(3), "time": "mine", "list": ["1", ["k": .stringConvertible(true)]]])
    let line = try #require(pipe.lines().first)
    #expect(
      line
        == #"{"time":"2026-11-21T10:00:00.123Z","level":"info","message":"a\"b\n","list":["1",{"k":true}],"n":3,"_time":"mine"}"#
    )
  }

  @Test("whatever an event says, it is one line", arguments: LogFormat.allCases)
  func oneLine(format: LogFormat) throws {
    let sink = sink(format)
    let nasty = "a\nb\r\0\u{1b}[2J\u{85}\u{2028}\u{202e}c"
    log(sink, nasty, [nasty: .string(nasty), "n": .array([.string(nasty)])], level: .error)
    let lines = pipe.lines()
    #expect(lines.count == 1)
    #expect(lines[0].unicodeScalars.allSatisfy { $0.value >= 0x20 && !(0x7f...0x9f).contains($0.value) })
    #expect(!lines[0].unicodeScalars.contains { [0x2028, 0x202e].contains($0.value) })
    if format == .json { _ = try JSONSerialization.jsonObject(with: Data(lines[0].utf8)) }
  }

  @Test("what `escaped` returned is not escaped again")
  func escapedOnce() {
    let sink = sink()
    log(sink, "got", ["data": .string(Array("\u{1b}[0m".utf8).withUnsafeBytes { escaped($0) })])
    #expect(pipe.lines() == [#"2026-11-21T10:00:00.123Z info  got data=\x1b[0m"#])
  }

  @Test("long values, many fields and deep values have a bound", arguments: LogFormat.allCases)
  func bounds(format: LogFormat) throws {
    let sink = sink(format)
    let long = String(repeating: "x", count: 100_000)
    log(sink, long, ["v": .string(long)])
    let line = try #require(pipe.lines().first)
    #expect(line.utf8.count < 3 * LogLimits.valueBytesMax)
    #expect(line.contains("… (91808 bytes more)"))
    var many: Logger.Metadata = [:]
    for index in 0..<1000 { many["f\(index)"] = "" }
    var deep = Logger.MetadataValue.string("bottom")
    for _ in 0..<1000 { deep = .array([deep]) }
    many["a"] = deep
    log(sink, "many", many)
    let second = try #require(pipe.lines().first)
    #expect(second.utf8.count < 4096)
    #expect(second.contains("937"))
    #expect(!second.contains("bottom"))
  }

  @Test("dropped lines are counted and told on the next line that is written")
  func dropped() {
    let sink = sink()
    _ = pipe.fill()
    for round in 0..<5 { log(sink, "lost \(round)") }
    #expect(sink.droppedLines == 5)
    _ = pipe.drain()
    log(sink, "seen")
    log(sink, "next")
    #expect(
      pipe.lines() == [
        "2026-11-21T10:00:00.123Z info  seen dropped=5", "2026-11-21T10:00:00.123Z info  next",
      ])
    pipe.closeReading()
    log(sink, "nobody")
    #expect(sink.droppedLines == 6)
  }

  @Test("a flood of one event is ten lines a second and a count")
  func repeats() {
    let sink = sink()
    for _ in 0..<1244 { log(sink, "again", at: 0) }
    #expect(pipe.lines().count == 10)
    log(sink, "other", at: 999)
    #expect(pipe.lines().count == 1)
    log(sink, "other", at: 1000)
    #expect(
      pipe.lines() == [
        "2026-11-21T10:00:01.000Z info  repeated 1234 times: again repeated=1234",
        "2026-11-21T10:00:01.000Z info  other",
      ])
    for _ in 0..<12 { log(sink, "last", at: 1500) }
    _ = pipe.drain()
    sink.flush(time: time(1600))
    #expect(pipe.lines() == ["2026-11-21T10:00:01.600Z info  repeated 2 times: last repeated=2"])
    sink.flush(time: time(1700))
    #expect(pipe.lines() == [])
  }

  @Test("events that differ in source, level, message or fields are not repeats")
  func notRepeats() {
    let sink = sink()
    for round in 0..<100 {
      log(sink, "message \(round)")
      log(sink, "fields", ["id": .stringConvertible(round)])
      log(sink, "label", label: "\(round)")
    }
    #expect(pipe.lines().count == 300)
  }

  @Test("a logger passes its own, the provided and the call's fields to the sink")
  func handler() {
    let sink = sink()
    var logger = Logger(label: "l") { LineLogHandler(label: $0, level: .info, sink: sink) }
    logger[metadataKey: "worker"] = "1"
    logger.debug("hidden")
    logger.info("shown", metadata: ["id": "7"])
    #expect(pipe.lines().map { String($0.dropFirst(25)) } == ["info  shown id=7 worker=1"])
  }

  @Test(
    "the time is UTC of the Gregorian calendar",
    arguments: [
      (0, "1970-01-01T00:00:00.000Z"), (951_782_399, "2000-02-28T23:59:59.000Z"),
      (951_782_400, "2000-02-29T00:00:00.000Z"),
      (1_767_225_599, "2025-12-31T23:59:59.000Z"), (4_107_542_400, "2100-03-01T00:00:00.000Z"),
    ])
  func calendar(seconds: Int, text: String) {
    #expect(LogTime(wallSeconds: seconds, wallNanoseconds: 0, monotonicNanoseconds: 0).text == text)
  }
}
