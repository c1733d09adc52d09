// Names to addresses without keeping a worker waiting: a few threads around the system's resolver, started when the first name
// is asked for. It must never wait for a look-up itself: one may hang, and the server still has to end.

import CompletionIO
import DequeModule

/// What came of a look-up.
typealias LookupResult = Result<[SocketAddress], HostLookupFailure>

/// What a worker wants an answer for.
enum LookupPurpose: Sendable {
  /// A coroutine waits for the addresses.
  case task(WaitTicket)
  /// `moonport.connect` goes on with them.
  case connect(ConnectNumber)
}

/// The look-ups of all workers.
final class Resolver: @unchecked Sendable {
  /// Threads that look up at once: a name whose servers do not answer takes one for 10 s and more, and few are asked for at
  /// a time.
  static let threadsMax = 4
  /// Different names that may wait for a thread; beyond that the caller is told at once. A name each is 64 KB in all.
  static let waitingMax = 1024

  /// A worker's question.
  private struct Question {
    let mailbox: Mailbox<WorkerMessage>
    let purpose: LookupPurpose
    /// Nobody waits for the answer after this, by the port's clock.
    let until: UInt64
  }

  /// The questions for one name.
  private struct Inquiry {
    var questions: [Question]
    /// At that many, those that nobody waits for any more are looked for: each is so looked at only a few times.
    var keptMax = 16

    mutating func add(_ question: Question) {
      if questions.count >= keptMax {
        let clock = CompletionPort.clock()
        questions.removeAll { $0.until <= clock }
        keptMax = max(16, questions.count * 2)
      }
      questions.append(question)
    }
  }

  private let condition = ThreadCondition()
  private let lookup: @Sendable (String) -> LookupResult
  // Under the condition's lock:
  private var inquiries: [String: Inquiry] = [:]
  /// Names for which no thread has begun, oldest first.
  private var waiting: Deque<String> = []
  private var threads = 0
  private var idleThreads = 0
  private var isEnding = false

  /// `lookup` is called on threads of the resolver's own.
  init(lookup: @escaping @Sendable (String) -> LookupResult) { self.lookup = lookup }

  /// A resolver that asks the system.
  convenience init() {
    self.init { name in
      do throws(HostLookupFailure) {
        return .success(try SocketAddress.lookUp(name, port: 0))
      } catch {
        return .failure(error)
      }
    }
  }

  /// Asks for a name; the answer comes to `mailbox`. Questions for one name share a look-up. False when too many names wait.
  func lookUp(_ name: String, for purpose: LookupPurpose, until: UInt64, answerTo mailbox: Mailbox<WorkerMessage>)
    -> Bool
  {
    condition.withLock {
      if isEnding { return false }
      let question = Question(mailbox: mailbox, purpose: purpose, until: until)
      if inquiries[name] != nil {
        inquiries[name]?.add(question)
        return true
      }
      guard waiting.count < Self.waitingMax else { return false }
      if idleThreads <= waiting.count, threads < Self.threadsMax { startThread() }
      if threads == 0 { return false }
      inquiries[name] = Inquiry(questions: [question])
      waiting.append(name)
      condition.signal()
      return true
    }
  }

  /// Questions that wait for an answer, those that nobody waits for any more included.
  var waitingQuestions: Int { condition.withLock { inquiries.values.reduce(0) { $0 + $1.questions.count } } }

  /// Lets the threads end. One that hangs in a look-up ends with the process.
  func end() {
    condition.withLock {
      isEnding = true
      inquiries = [:]
      waiting = []
      condition.broadcast()
    }
  }

  /// Never joined, since it may hang.
  private func startThread() {
    if Thread.startIfPossible(name: "resolver", { [self] in work() }) != nil { threads += 1 }
  }

  private func work() {
    while let name = take() {
      let result = lookup(name)
      for question in condition.withLock({ inquiries.removeValue(forKey: name)?.questions ?? [] }) {
        question.mailbox.post(.resolved(question.purpose, result))
      }
    }
  }

  /// The next name that somebody still waits for; nil when the server ends.
  private func take() -> String? {
    condition.withLock {
      while true {
        if isEnding { return nil }
        guard let name = waiting.popFirst() else {
          idleThreads += 1
          condition.wait()
          idleThreads -= 1
          continue
        }
        let clock = CompletionPort.clock()
        if inquiries[name]?.questions.contains(where: { $0.until > clock }) == true { return name }
        inquiries[name] = nil
      }
    }
  }
}
