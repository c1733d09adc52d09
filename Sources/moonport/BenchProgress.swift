// The line that changes while a load runs. Must never know how the load is made.

import Glibc
import Histogram
import LoadGenerator
import ScriptServer

/// Shows the figures so far in one line of the terminal, where standard error is one; nothing elsewhere.
final class BenchProgress {
  private let isTerminal = isatty(STDERR_FILENO) == 1
  private var lastCount = 0
  private var lastSeconds = 0.0

  /// Writes over the last line.
  func show(_ figures: LoadFigures) {
    guard isTerminal else { return }
    let rate = Double(figures.messagesInTime - lastCount) / max(figures.seconds - lastSeconds, 0.001)
    lastCount = figures.messagesInTime
    lastSeconds = figures.seconds
    var line = "\(Int(figures.seconds.rounded())) s  \(FigureText.count(Int64(rate))) messages/s"
    if figures.latencies.totalCount > 0 {
      let median = BenchReport.span(figures.latencies.valueAtPercentile(50))
      line += "  p50 \(median)  p99 \(BenchReport.span(figures.latencies.valueAtPercentile(99)))"
    }
    if figures.mismatches > 0 { line += "  \(FigureText.count(Int64(figures.mismatches))) wrong" }
    write("\r\u{1B}[K\(line)")
  }

  /// Clears the line.
  func end() {
    if isTerminal { write("\r\u{1B}[K") }
  }

  private func write(_ text: String) { _ = StandardStream.write(Array(text.utf8), to: STDERR_FILENO) }
}
