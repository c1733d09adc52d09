// The dictionaries of a server, by name. They live as long as the server does, whatever is reloaded.

import CompletionIO

/// All dictionaries of one server.
final class SharedDirectory: @unchecked Sendable {
  /// Dictionaries of a server: scripts name them in their text; one whose names come from clients is told so.
  static let dictionariesMax = 1024
  /// The longest name, in bytes: it is shown in the status.
  static let nameBytesMax = 255

  /// Called when a dictionary has freed much memory, on any thread. To be set before there is one.
  var whenFreed: (@Sendable () -> Void)?

  private let lock = ThreadLock()
  private var dictionaries: [[UInt8]: SharedDictionary] = [:]
  private var names: [[UInt8]] = []

  /// The dictionary with the name, made if it is new. `capacityBytes` is the cap of a new one. Nil when there are too many.
  func dictionary(_ name: UnsafeRawBufferPointer, capacityBytes: Int?) -> SharedDictionary? {
    let name = unsafe Array(name)
    return lock.withLock {
      if let found = dictionaries[name] { return found }
      guard names.count < Self.dictionariesMax else { return nil }
      let made = SharedDictionary(
        name: name, capacityBytes: capacityBytes ?? SharedDictionary.defaultCapacityBytes,
        whenFreed: { [weak self] in self?.whenFreed?() })
      dictionaries[name] = made
      names.append(name)
      return made
    }
  }

  /// Changes the cap of a dictionary that is there.
  func setCapacity(_ bytes: Int, of name: [UInt8]) { lock.withLock { dictionaries[name] }?.setCapacity(bytes) }

  /// Frees what readers had in their hands when it was removed.
  func collect() { for dictionary in all { dictionary.collect() } }

  private var all: [SharedDictionary] { lock.withLock { names.compactMap { dictionaries[$0] } } }

  /// What the status shows of them, in the order in which they were made.
  var figures: [SharedDictionaryStatus] { all.map(\.figures) }
}
