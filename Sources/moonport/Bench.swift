// The command `bench`: what it takes, and which load that is. Must never know how the load is made or shown.

import ArgumentParser
import Codecs
import CompletionIO
import Glibc
import LoadGenerator

/// `moonport bench`: a load generator.
struct Bench: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "bench",
    abstract: "Put load on a server and measure its answers.",
    discussion: """
      Each connection sends as many messages as --pipeline says, waits until all of them came back, and sends the next. \
      With --rate messages are due at fixed times instead, spread over the connections, and a latency counts from when \
      its message was due: a server that stalls is charged for all that had to wait meanwhile. Every echo is compared \
      with what was sent. Ctrl-C ends early and shows the figures so far. Exit status 1 when a connection was lost, or \
      an answer was wrong or missing.
      """)

  @Argument(help: ArgumentHelp("Where the server is: HOST:PORT, [V6]:PORT, :PORT (this machine) or unix:PATH."))
  var address: String

  @Option(help: ArgumentHelp("Connections, 1 to 60000.", valueName: "number"))
  var connections = 50

  @Option(
    help: ArgumentHelp(
      "Bytes of a message without what the codec adds, 0 to 16777216. (default: 64)", valueName: "bytes"))
  var size: Int?

  @Option(
    help: ArgumentHelp(
      "Messages a connection has on their way at once, 1 to 65536. (default: 1; with --rate 64)", valueName: "number"))
  var pipeline: Int?

  @Option(help: ArgumentHelp("Seconds to send, 0.1 to 86400.", valueName: "seconds"))
  var duration: Double = 10

  @Option(
    help: ArgumentHelp(
      "Messages per second of all connections together, sent at fixed times. (default: as fast as the answers come)",
      valueName: "number"))
  var rate: Double?

  @Option(help: ArgumentHelp("How messages are framed: \(Codec.commandForms).", valueName: "codec"))
  var codec = "line"

  @Option(help: ArgumentHelp("The text of every message. (default: letters and digits)", valueName: "text"))
  var message: String?

  @Option(
    help: ArgumentHelp("What the server answers: echo, or none, where nothing is waited for.", valueName: "answer"))
  var expect = LoadPlan.Expectation.echo

  @Flag(help: "Print JSON for a program instead of text for a person. (default: off)")
  var json = false

  /// Without a rate, the usual conversation: a question, an answer.
  private static let inFlightDefault = 1
  /// With a rate, enough that the pace is kept while a server stalls for a while.
  private static let inFlightDefaultAtRate = 64

  func validate() throws {
    do throws(AddressError) {
      try AddressText(address).checkForConnecting()
    } catch {
      throw ValidationError(error.message)
    }
    do throws(LoadError) {
      try plan().check()
    } catch {
      throw ValidationError(error.message)
    }
  }

  func run() throws {
    guard let plan = try? plan() else { preconditionFailure("validate() accepted the plan") }
    let report = BenchReport(address: address, plan: plan)
    do throws(LoadError) {
      let run = try LoadRun(plan, target: try reach())
      let progress = BenchProgress()
      let figures = try run.run { progress.show($0) }
      progress.end()
      StandardStream.printText(json ? report.json(figures) : report.text(figures), to: STDOUT_FILENO)
      guard figures.isGood else {
        if let problem = figures.firstProblem { Self.say(problem) }
        throw LoadError("")
      }
    } catch {
      if !error.message.isEmpty { Self.say("cannot measure \(address): \(error.message)") }
      throw ExitCode.failure
    }
  }

  private func plan() throws(LoadError) -> LoadPlan {
    guard message == nil || size == nil else { throw LoadError("--message has a size of its own: leave out --size") }
    var plan = LoadPlan()
    plan.connections = connections
    plan.messageBytes = size ?? plan.messageBytes
    plan.text = message.map { Array($0.utf8) }
    plan.inFlight = pipeline ?? (rate == nil ? Self.inFlightDefault : Self.inFlightDefaultAtRate)
    plan.seconds = duration
    plan.rate = rate
    plan.expectation = expect
    guard LoadPlan.messageBytesAllowed.contains(plan.payloadBytes) else {
      throw LoadError("--size takes 0 to \(LoadPlan.messageBytesAllowed.upperBound), not \(plan.payloadBytes)")
    }
    plan.codec = try Codec(commandText: codec, payloadBytes: plan.payloadBytes)
    return plan
  }

  /// The address behind the name, by a connection that is closed at once: the load's own go where this one arrived.
  private func reach() throws(LoadError) -> SocketAddress {
    do {
      let socket = try ServerSocket.connect(to: try AddressText(address))
      defer { close(socket) }
      return try SocketAddress.peer(of: socket)
    } catch let error as AddressError {
      throw LoadError(error.message)
    } catch {
      throw LoadError("\(error)")
    }
  }

  private static func say(_ text: String) {
    StandardStream.printLine("moonport: \(text)", to: STDERR_FILENO)
  }
}

extension LoadPlan.Expectation: ExpressibleByArgument {}
