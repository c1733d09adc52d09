// Pairs of connections whose bytes are passed on to each other. Plain data: what happens to it is the worker's.

import CompletionIO

/// One connection of a pair, and the direction from it to the other one.
struct PipeSide {
  var key = HandleKey.none
  /// Bytes passed on before the port took over: what had been received and not handled.
  var passedBytes: Int64 = 0
  /// The port relays it, or it is over.
  var hasBegun = false
  /// A read of it was on its way when the pipe began; what that brings comes first.
  var awaitsRead = false
  /// It has ended its side, and the other one was told.
  var hasEnded = false
  /// The other one takes no more.
  var hasFailed = false
}

/// One pair.
struct Pipe {
  var first: PipeSide
  var second: PipeSide
  /// The wait of the coroutine that asked for it; over when that has ended, which the bytes do not notice.
  var ticket: WaitTicket?

  /// The side of a connection.
  func side(of key: HandleKey) -> PipeSide { first.key == key ? first : second }

  /// The other side.
  func other(than key: HandleKey) -> PipeSide { first.key == key ? second : first }

  /// Changes the side of a connection.
  mutating func update(_ key: HandleKey, _ change: (inout PipeSide) -> Void) {
    if first.key == key { change(&first) } else { change(&second) }
  }
}

/// The pairs by index. Owned by the worker's thread.
struct PipeTable {
  private var pipes: [Pipe] = []
  private var free: [Int32] = []

  var isEmpty: Bool { free.count == pipes.count }

  mutating func insert(_ pipe: Pipe) -> Int32 {
    guard let index = free.popLast() else {
      pipes.append(pipe)
      return Int32(pipes.count - 1)
    }
    pipes[Int(index)] = pipe
    return index
  }

  subscript(index: Int32) -> Pipe {
    get { pipes[Int(index)] }
    set { pipes[Int(index)] = newValue }
  }

  mutating func remove(_ index: Int32) -> Pipe {
    free.append(index)
    defer { pipes[Int(index)].ticket = nil }
    return pipes[Int(index)]
  }
}
