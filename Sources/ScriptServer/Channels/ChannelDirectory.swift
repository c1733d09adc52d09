// Which workers have subscribers to which channel, so that a message is posted to those alone. The one thing about channels, besides
// the messages themselves, that crosses threads.

import CompletionIO
import LuaRuntime

/// A channel's name: like a room's, the bytes that the script gave.
typealias ChannelName = RoomName

/// A message on its way to the subscribers of one or more workers: packed once, shared by all.
final class PublishedMessage: Sendable {
  let channel: ChannelName
  /// The values behind the channel's name, as a list.
  let values: PlainData

  init(channel: ChannelName, values: PlainData) {
    self.channel = channel
    self.values = values
  }

  /// What it counts for in a mailbox, in bytes.
  var mailboxBytes: Int { values.bytes.count + channel.bytes.count }
}

/// The directory. Safe to use from every thread.
final class ChannelDirectory: @unchecked Sendable {
  private let lock = ThreadLock()
  /// Indexes of the workers with at least one subscription, in no order.
  private var workers: [ChannelName: [Int]] = [:]

  /// The workers with subscribers to a channel, by their indexes.
  func subscribers(_ channel: ChannelName) -> [Int] { lock.withLock { workers[channel] ?? [] } }

  /// A worker has its first subscription to a channel.
  func enter(_ worker: Int, _ channel: ChannelName) { lock.withLock { workers[channel, default: []].append(worker) } }

  /// A worker has lost its last subscription to a channel.
  func leave(_ worker: Int, _ channel: ChannelName) {
    lock.withLock {
      guard var left = workers[channel], let place = left.firstIndex(of: worker) else { return }
      left.remove(at: place)
      workers[channel] = left.isEmpty ? nil : left
    }
  }
}
