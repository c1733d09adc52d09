// The subscriptions of one worker: by token, and by channel in the order they were made. Plain data: what is done with their functions
// is the worker's. The directory learns of a channel's first and last subscription.

import LuaRuntime

/// Slot and generation of a subscription; one that outlived its subscription is recognised.
struct SubscriptionToken: Equatable {
  var slot: UInt32
  var generation: UInt32

  /// As scripts hold it.
  var rawValue: Int64 { Int64(generation) << 24 | Int64(slot) }

  init(slot: UInt32, generation: UInt32) {
    self.slot = slot
    self.generation = generation
  }

  init(rawValue: Int64) {
    self.init(slot: UInt32(rawValue & 0xff_ffff), generation: UInt32(truncatingIfNeeded: rawValue >> 24))
  }
}

/// One subscription.
struct Subscription {
  var token: SubscriptionToken
  var channel: ChannelName
  /// `none` while the slot is free.
  var function: LuaReference
  var codeGeneration: Int
  /// Counts up with each subscription of the worker.
  var number: UInt64
}

/// The table. Owned by the worker's thread.
struct Subscriptions: ~Copyable {
  private var slots: [Subscription] = []
  private var free: [UInt32] = []
  private var channels: [ChannelName: [SubscriptionToken]] = [:]
  private(set) var count = 0
  private var lastNumber: UInt64 = 0
  private let directory: ChannelDirectory
  private let worker: Int

  /// Subscriptions of one worker: one for each of as many clients as a worker may have, at some 200 bytes each, is 13 MB.
  static let subscriptionsMax = 1 << 16

  /// An empty table of the worker with this index.
  init(directory: ChannelDirectory, worker: Int) {
    self.directory = directory
    self.worker = worker
  }

  /// Enters a subscription, which owns `function`; nil at the bound.
  mutating func insert(_ channel: ChannelName, _ function: LuaReference, codeGeneration: Int) -> SubscriptionToken? {
    guard count < Self.subscriptionsMax else { return nil }
    count += 1
    let slot = free.popLast() ?? UInt32(slots.count)
    let generation = Int(slot) < slots.count ? slots[Int(slot)].token.generation : 1
    let token = SubscriptionToken(slot: slot, generation: generation)
    lastNumber += 1
    let subscription = Subscription(
      token: token, channel: channel, function: function, codeGeneration: codeGeneration, number: lastNumber)
    if Int(slot) < slots.count { slots[Int(slot)] = subscription } else { slots.append(subscription) }
    channels[channel, default: []].append(token)
    if channels[channel]?.count == 1 { directory.enter(worker, channel) }
    return token
  }

  /// A subscription that still exists.
  subscript(token: SubscriptionToken) -> Subscription? {
    guard Int(token.slot) < slots.count, slots[Int(token.slot)].token == token,
      slots[Int(token.slot)].function.exists
    else { return nil }
    return slots[Int(token.slot)]
  }

  /// Forgets a subscription; its function is the caller's to give back. Nil when it has ended already.
  mutating func remove(_ token: SubscriptionToken) -> LuaReference? {
    guard let subscription = self[token] else { return nil }
    leaveChannel(subscription)
    forget(token)
    return subscription.function
  }

  private mutating func forget(_ token: SubscriptionToken) {
    slots[Int(token.slot)].function = .none
    slots[Int(token.slot)].token.generation = max(token.generation &+ 1, 1)
    free.append(token.slot)
    count -= 1
  }

  /// Forgets all subscriptions of a generation at once, each channel's list being gone through a single time; returns their functions,
  /// which are the caller's to give back.
  mutating func removeAll(of codeGeneration: Int) -> [LuaReference] {
    var functions: [LuaReference] = []
    for (channel, tokens) in channels {
      let (kept, gone) = (
        tokens.filter { slots[Int($0.slot)].codeGeneration != codeGeneration },
        tokens.filter { slots[Int($0.slot)].codeGeneration == codeGeneration }
      )
      if gone.isEmpty { continue }
      functions += gone.map { slots[Int($0.slot)].function }
      for token in gone { forget(token) }
      channels[channel] = kept.isEmpty ? nil : kept
      if kept.isEmpty { directory.leave(worker, channel) }
    }
    return functions
  }

  /// Takes a subscription out of its channel's list, which is in the order of the numbers: many may leave at once.
  private mutating func leaveChannel(_ subscription: Subscription) {
    let channel = subscription.channel
    guard let place = channels.index(forKey: channel) else { return }
    var low = 0
    var high = channels.values[place].count
    while low < high {
      let middle = (low + high) / 2
      let token = channels.values[place][middle]
      if slots[Int(token.slot)].number < subscription.number { low = middle + 1 } else { high = middle }
    }
    precondition(channels.values[place][low] == subscription.token, "a subscription is not in its channel's list")
    channels.values[place].remove(at: low)
    if !channels.values[place].isEmpty { return }
    channels[channel] = nil
    directory.leave(worker, channel)
  }

  /// The subscriptions to a channel in the order they were made. A copy: functions may subscribe and cancel while it is walked.
  func tokens(of channel: ChannelName) -> [SubscriptionToken] { channels[channel] ?? [] }
}
