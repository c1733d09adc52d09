// The command `connect`: reaches the server, asks to retry while it is not there, and says how it ended. Must never
// know how lines are edited or bytes moved.

import ArgumentParser
import Glibc

/// `moonport connect`: a line client.
struct Connect: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "connect",
    abstract: "Talk to a server line by line.",
    discussion: """
      What is typed goes out, line by line and exactly as typed; what arrives is shown at once, even while a line is \
      being typed. Redirected input goes out byte for byte, and redirected output is what arrived, byte for byte. \
      The line `quit` leaves and is not sent. At the end of input the sending side is closed, and what arrives is \
      shown until the server closes. While the server is not there, `retry? (y/n)` is answered by the next line of \
      input. Messages of the client itself go to standard error.
      """)

  @Argument(
    help: ArgumentHelp("Where the server is: HOST:PORT, [V6]:PORT, :PORT (this machine) or unix:PATH."))
  var address: String

  func validate() throws {
    do throws(AddressError) {
      try AddressText(address).checkForConnecting()
    } catch {
      throw ValidationError(error.message)
    }
  }

  func run() throws {
    // A closed pipe is seen as EPIPE where it is written to, so that the terminal is restored first.
    _ = signal(SIGPIPE, SIG_IGN)
    guard let target = try? AddressText(address) else { preconditionFailure("validate() accepted the address") }
    var question = RetryQuestion()
    let socket = try reach(target, asking: &question)
    // The client edits lines from here on; only now is the user told to type.
    var client = LineClient(socket: socket, input: question.unusedInput)
    Self.say("connected to \(address)")
    try finish(client.run())
  }

  /// Connects; while that fails, asks whether to try again. Throws the exit status when the answer is no.
  private func reach(_ target: AddressText, asking question: inout RetryQuestion) throws -> Int32 {
    while true {
      do throws(AddressError) {
        return try ServerSocket.connect(to: target)
      } catch {
        Self.say("cannot connect to \(address): \(error.message)")
        guard question.isAnsweredYes() else { throw ExitCode.failure }
      }
    }
  }

  private func finish(_ end: LineClient.End) throws {
    switch end {
    case .quit:
      return
    case .serverClosed:
      Self.say("the server closed the connection")
    case .outputClosed:
      throw ExitCode.failure
    case .failed(let reason):
      Self.say(reason)
      throw ExitCode.failure
    }
  }

  private static func say(_ text: String) {
    StandardStream.printLine("moonport: \(text)", to: STDERR_FILENO)
  }
}

/// Asks on standard error, reads the answer from standard input.
struct RetryQuestion {
  /// Longest answer in bytes; no answer is longer than "yes", but the line may be a pasted one.
  private static let answerBytesMax = 65_536
  private static let readBytes = 4096

  /// What was read from standard input beyond the answers; it belongs to the server.
  private(set) var unusedInput: [UInt8] = []

  /// Asks until the answer is yes or no; the end of input is a no.
  mutating func isAnsweredYes() -> Bool {
    while true {
      _ = StandardStream.write(Array("retry? (y/n) ".utf8), to: STDERR_FILENO)
      guard let line = nextLine() else {
        StandardStream.printLine("", to: STDERR_FILENO)
        return false
      }
      switch String(decoding: line, as: UTF8.self).lowercased() {
      case "y", "yes": return true
      case "n", "no", "quit": return false
      default: continue
      }
    }
  }

  /// The next line of input without its end and the blanks around it; nil at the end of input.
  private mutating func nextLine() -> [UInt8]? {
    while true {
      if let end = unusedInput.firstIndex(of: UInt8(ascii: "\n")) {
        let line = unusedInput[..<end].filter { $0 > UInt8(ascii: " ") }
        unusedInput.removeSubrange(...end)
        return line
      }
      guard unusedInput.count < Self.answerBytesMax else { return nil }
      var chunk = [UInt8](repeating: 0, count: Self.readBytes)
      let count = unsafe chunk.withUnsafeMutableBytes { unsafe read(STDIN_FILENO, $0.baseAddress, $0.count) }
      if count > 0 {
        unusedInput += chunk[..<count]
      } else if count == 0 || errno != EINTR {
        guard !unusedInput.isEmpty else { return nil }
        defer { unusedInput = [] }
        return unusedInput.filter { $0 > UInt8(ascii: " ") }
      }
    }
  }
}
