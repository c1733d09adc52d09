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

  /// Starts the function of each subscription that was there when the message came, in the order they were made.
  func deliver(_ message: PublishedMessage) {
    guard let generation else { return }
    for token in subscriptions.tokens(of: message.channel) {
      // One may have been cancelled by another's function; those of a generation that is not live yet have to wait.
      guard let subscription = subscriptions[token], subscription.codeGeneration <= generation.number else { continue }
      counters.delivered.add(1)
      let owner = TaskOwner(kind: .event, connection: .none, codeGeneration: subscription.codeGeneration)
      unsafe message.values.withValue { unsafe start(subscription.function, LuaArguments($0), owner) }
      settle()
    }
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
    for token in subscriptions.tokens(where: { $0.codeGeneration == codeGeneration }) { cancelSubscription(token) }
  }
}
