// Publishing and subscribing. A message goes to the mailbox of every worker that has subscribers, the publisher's own included, so
// that nothing nests, every subscriber sees one publisher's messages in their order, and one bound holds for all.

import CompletionIO
import LuaRuntime

/// What a worker's code publishes while all workers stand still for a reload. Were it posted at once, it would find some workers that
/// have, and some that have not yet delivered what was published before.
struct Standstill {
  var isOn = false
  private(set) var messages: [PublishedMessage] = []
  private var bytes = 0

  /// Bytes that may be held: a quarter of what a mailbox takes, since every worker may hold as much.
  private static let bytesMax = 16 << 20
  /// Messages that may be held, likewise.
  private static let messagesMax = 1 << 18

  /// Keeps a message; false when there are too many.
  mutating func hold(_ message: PublishedMessage) -> Bool {
    guard messages.count < Self.messagesMax, bytes + message.mailboxBytes <= Self.bytesMax else { return false }
    messages.append(message)
    bytes += message.mailboxBytes
    return true
  }
}

/// A published message on its way through a worker's subscriptions: those of one message may take more than a turn.
struct Delivery {
  let values: PlainData
  let tokens: [SubscriptionToken]
  /// Those before it have got it.
  var next = 0
}

extension Worker {
  /// Posts the packed list `values` to every worker that has subscribers; false when one of them is so far behind that its
  /// mailbox takes no more. The others get the message all the same.
  func publish(_ channel: ChannelName, _ values: LuaValue) -> Bool {
    counters.published.add(1)
    let subscribers = server.channels.subscribers(channel)
    guard !subscribers.isEmpty, let packed = unsafe PlainData(values) else { return true }
    let message = PublishedMessage(channel: channel, values: packed)
    if standstill.isOn {
      let isHeld = standstill.hold(message)
      if !isHeld { counters.dropped.add(1) }
      return isHeld
    }
    postGathered()
    return post(message, to: subscribers)
  }

  private func post(_ message: PublishedMessage, to subscribers: [Int]) -> Bool {
    var isComplete = true
    for index in subscribers where server.workers.indices.contains(index) {
      let mailbox = server.workers[index].mailbox
      if mailbox.postDroppable(.published(message), bytes: message.mailboxBytes) || mailbox.isClosed { continue }
      counters.dropped.add(1)
      isComplete = false
    }
    return isComplete
  }

  /// Begins the delivery of a message to the subscriptions that are there now.
  func deliver(_ message: PublishedMessage) {
    // Before a generation is live, nobody can have subscribed.
    guard generation != nil else { return }
    delivery = Delivery(values: message.values, tokens: subscriptions.tokens(of: message.channel))
  }

  /// Starts the functions of the next subscriptions that the message under way is for, in the order they were made.
  func goOnDelivering(_ share: inout TurnShare) {
    guard let current = delivery else { return }
    var next = current.next
    while next < current.tokens.count, !share.isUsedUp {
      deliver(current.values, to: current.tokens[next])
      next += 1
      share.spend()
    }
    delivery?.next = next
    if next == current.tokens.count { delivery = nil }
  }

  private func deliver(_ values: PlainData, to token: SubscriptionToken) {
    // One may have been cancelled by another's function; those of a generation that is not live yet have to wait.
    guard let generation, let subscription = subscriptions[token], subscription.codeGeneration <= generation.number
    else { return }
    counters.delivered.add(1)
    let owner = TaskOwner(kind: .event, connection: .none, codeGeneration: subscription.codeGeneration)
    unsafe values.withValue { unsafe start(subscription.function, LuaArguments($0), owner) }
    settle()
  }

  /// From the meeting of a reload on, what is published stays here.
  func holdPublished() { standstill.isOn = true }

  /// It is decided which code goes on: its subscribers get what was published since the meeting.
  func releasePublished() {
    let messages = standstill.messages
    standstill = Standstill()
    for message in messages { _ = post(message, to: server.channels.subscribers(message.channel)) }
  }

  /// Whether it is too late for code of a generation to subscribe.
  func refusesSubscription(of codeGeneration: Int) -> Bool {
    // One that was replaced, or that was given up before it went live: its subscriptions have been given back.
    codeGeneration != generation?.number && codeGeneration != candidate?.number
  }

  /// Ends a subscription; false when it has ended.
  @discardableResult
  func cancelSubscription(_ token: SubscriptionToken) -> Bool {
    guard let function = subscriptions.remove(token) else { return false }
    counters.subscriptions.set(subscriptions.count)
    lua.release(function)
    return true
  }

  /// Ends the subscriptions of a generation that is over.
  func cancelSubscriptions(of codeGeneration: Int) {
    for function in subscriptions.removeAll(of: codeGeneration) { lua.release(function) }
    counters.subscriptions.set(subscriptions.count)
  }
}
