// The figures of a load as text and as JSON. Pure text; must never know how they came about.

import Codecs
import Histogram
import LoadGenerator
import ScriptServer

/// What `bench` prints.
struct BenchReport {
  /// Columns of the longest bar.
  private static let barColumns = 40

  let address: String
  let plan: LoadPlan

  // MARK: text

  func text(_ figures: LoadFigures) -> String {
    var lines = [heading]
    if figures.wasInterrupted { lines.append("ended early, after \(FigureText.shortSpan(figures.seconds))") }
    lines.append("messages   \(counts(figures))")
    lines.append("rate       \(rates(figures))")
    if figures.latencies.totalCount > 0 { lines.append("latency    \(latencies(figures))") }
    lines.append("generator  \(generator(figures))")
    return lines.joined(separator: "\n") + "\n" + histogram(figures)
  }

  private var heading: String {
    let pace = plan.rate.map { "\(FigureText.decimal($0, places: 0)) messages/s due" } ?? "closed loop"
    return "\(address): \(plural(plan.connections, "connection")), \(plan.inFlight) in flight on each, messages of "
      + "\(FigureText.count(Int64(plan.payloadBytes))) bytes, codec \(plan.codec.name), \(pace)"
  }

  private func counts(_ figures: LoadFigures) -> String {
    var parts = ["\(count(figures.messagesSent)) sent"]
    if plan.expectation == .echo {
      parts.append("\(count(figures.messagesBack)) back, \(count(figures.mismatches)) wrong")
      if figures.unanswered > 0 { parts.append("\(count(figures.unanswered)) unanswered") }
    }
    if figures.overdue > 0 { parts.append("\(count(figures.overdue)) due and not sent") }
    if figures.connectionsLost > 0 { parts.append("\(plural(figures.connectionsLost, "connection")) lost") }
    return parts.joined(separator: ", ")
  }

  private func rates(_ figures: LoadFigures) -> String {
    let seconds = max(figures.seconds, 1e-9)
    let out = FigureText.size(Int64(Double(figures.bytesSent) / seconds))
    let back = FigureText.size(Int64(Double(figures.bytesReceived) / seconds))
    return "\(count(Int(figures.messagesPerSecond))) messages/s for \(FigureText.shortSpan(figures.seconds)); "
      + "\(out)/s out, \(back)/s back"
  }

  private func latencies(_ figures: LoadFigures) -> String {
    let histogram = figures.latencies
    var parts = ["min \(Self.span(histogram.min))", "mean \(Self.span(UInt64(histogram.mean)))"]
    for percentile in Self.percentiles {
      parts.append("\(Self.name(percentile)) \(Self.span(histogram.valueAtPercentile(percentile)))")
    }
    parts.append("max \(Self.span(histogram.max))")
    return parts.joined(separator: "  ")
  }

  private func generator(_ figures: LoadFigures) -> String {
    let share = FigureText.percent(figures.processorShare)
    // What is left of the core goes to the clock's interrupts and the like.
    guard figures.processorShare > 0.97 else { return "\(share) of a core" }
    return "\(share) of a core: it may be the generator that these figures show the limit of, not the server"
  }

  /// The latencies in steps of 1, 2 and 5, a bar for each step that has any.
  private func histogram(_ figures: LoadFigures) -> String {
    let total = figures.latencies.totalCount
    guard total > 0 else { return "" }
    let rows = Self.steps(figures.latencies)
    let longest = rows.map(\.count).max() ?? 1
    let spans = rows.map { "\(Self.span($0.from)) - \(Self.span($0.to))" }
    let width = spans.map(\.count).max() ?? 0
    var text = "\n"
    for (row, span) in zip(rows, spans) {
      let share = FigureText.decimal(100 * Double(row.count) / Double(total), places: 2)
      let bar = String(repeating: "#", count: Int((row.count * UInt64(Self.barColumns) + longest - 1) / longest))
      let messages = count(Int(row.count))
      text += "\(Self.padded(span, width))  \(Self.padded(messages, 13))  \(Self.padded(share, 6)) %  \(bar)"
      while text.last == " " { text.removeLast() }
      text += "\n"
    }
    return text
  }

  /// The counts of a histogram between neighbouring steps of 1, 2, 5, 10, 20, ... microseconds, from the first to the last that has
  /// any.
  static func steps(_ histogram: Histogram<UInt64>) -> [(from: UInt64, to: UInt64, count: UInt64)] {
    var bounds: [UInt64] = [0, 1_000]
    while let last = bounds.last, last <= histogram.max {
      // 1, 2, 5, 10: doubled, but for 2 to 5.
      var digit = last
      while digit >= 10 { digit /= 10 }
      bounds.append(digit == 2 ? last / 2 * 5 : last * 2)
    }
    var counts = [UInt64](repeating: 0, count: bounds.count - 1)
    var step = 0
    for entry in histogram.recordedValues() {
      while step + 1 < counts.count, entry.value >= bounds[step + 1] { step += 1 }
      counts[step] += entry.count
    }
    guard let first = counts.firstIndex(where: { $0 > 0 }), let last = counts.lastIndex(where: { $0 > 0 }) else {
      return []
    }
    return (first...last).map { (bounds[$0], bounds[$0 + 1], counts[$0]) }
  }

  // MARK: JSON

  func json(_ figures: LoadFigures) -> String {
    var json = JSONText()
    json.beginObject()
    json.member("address", address)
    json.member("connections", plan.connections)
    json.member("pipeline", plan.inFlight)
    json.member("size", plan.payloadBytes)
    json.member("codec", plan.codec.name)
    json.key("rate")
    if let rate = plan.rate { json.number(rate) } else { json.null() }
    json.member("seconds", figures.seconds)
    json.member("interrupted", figures.wasInterrupted)
    json.member("messages_sent", figures.messagesSent)
    json.member("messages_back", figures.messagesBack)
    json.member("messages_per_second", figures.messagesPerSecond)
    json.member("bytes_sent", figures.bytesSent)
    json.member("bytes_received", figures.bytesReceived)
    json.member("wrong", figures.mismatches)
    json.member("unanswered", figures.unanswered)
    json.member("overdue", figures.overdue)
    json.member("connections_lost", figures.connectionsLost)
    json.member("generator_cpu", figures.processorShare)
    json.key("problem")
    if let problem = figures.firstProblem { json.string(problem) } else { json.null() }
    json.key("latency_ns")
    latency(figures.latencies, into: &json)
    json.endObject()
    return json.string + "\n"
  }

  private func latency(_ histogram: Histogram<UInt64>, into json: inout JSONText) {
    guard histogram.totalCount > 0 else { return json.null() }
    json.beginObject()
    json.member("min", histogram.min)
    json.member("mean", histogram.mean)
    for percentile in Self.percentiles { json.member(Self.name(percentile), histogram.valueAtPercentile(percentile)) }
    json.member("max", histogram.max)
    json.key("histogram")
    json.beginArray()
    for row in Self.steps(histogram) {
      json.beginObject()
      json.member("from", row.from)
      json.member("to", row.to)
      json.member("count", row.count)
      json.endObject()
    }
    json.endArray()
    json.endObject()
  }

  // MARK: parts

  private static let percentiles: [Double] = [50, 90, 99, 99.9, 99.99]

  private static func name(_ percentile: Double) -> String {
    let whole = percentile.rounded() == percentile
    return "p" + (whole ? String(Int(percentile)) : String(percentile))
  }

  /// A latency in three digits: `850 ns`, `12.3 µs`, `4.56 ms`, `1.20 s`.
  static func span(_ nanoseconds: UInt64) -> String {
    var value = Double(nanoseconds)
    if value < 1000 { return "\(nanoseconds) ns" }
    var units = ["µs", "ms", "s"]
    value /= 1000
    while value >= 999.5, units.count > 1 {
      value /= 1000
      units.removeFirst()
    }
    let places = value < 9.995 ? 2 : value < 99.95 ? 1 : 0
    return "\(FigureText.decimal(value, places: places)) \(units[0])"
  }

  private static func padded(_ text: String, _ width: Int) -> String {
    String(repeating: " ", count: max(0, width - text.count)) + text
  }

  private func count(_ value: Int) -> String { FigureText.count(Int64(value)) }

  private func plural(_ value: Int, _ noun: String) -> String { "\(count(value)) \(noun)\(value == 1 ? "" : "s")" }
}
