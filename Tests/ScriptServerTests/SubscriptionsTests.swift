// The table of subscriptions and the directory of channels.

import LuaRuntime
import Testing

@testable import ScriptServer

@Suite("Subscriptions")
struct SubscriptionsTests {
  private let news = ChannelName(text: "news")
  private let sport = ChannelName(text: "sport")

  @Test("a channel's subscriptions come in the order they were made, and the directory knows the first and the last")
  func order() {
    let directory = ChannelDirectory()
    var table = Subscriptions(directory: directory, worker: 3)
    #expect(directory.subscribers(news).isEmpty)
    let tokens = (0..<3).map { table.insert(news, LuaReference(index: $0), codeGeneration: 1)! }
    let other = table.insert(sport, LuaReference(index: 9), codeGeneration: 2)!
    #expect(table.tokens(of: news) == tokens && table.tokens(of: sport) == [other] && table.count == 4)
    #expect(directory.subscribers(news) == [3] && directory.subscribers(sport) == [3])
    #expect(table.remove(tokens[1]) == LuaReference(index: 1))
    #expect(table.tokens(of: news) == [tokens[0], tokens[2]])
    #expect(table.remove(tokens[0]) != nil && table.remove(tokens[2]) != nil)
    #expect(directory.subscribers(news).isEmpty && directory.subscribers(sport) == [3])
    #expect(table.tokens(of: news).isEmpty && table.count == 1)
  }

  @Test("a token that outlived its subscription finds nothing, though its slot is used again")
  func stale() {
    var table = Subscriptions(directory: ChannelDirectory(), worker: 0)
    let old = table.insert(news, LuaReference(index: 1), codeGeneration: 1)!
    #expect(table.remove(old) != nil)
    #expect(table.remove(old) == nil && table[old] == nil)
    let new = table.insert(news, LuaReference(index: 2), codeGeneration: 1)!
    #expect(new.slot == old.slot && new != old && table[old] == nil && table[new]?.function.index == 2)
    #expect(SubscriptionToken(rawValue: new.rawValue) == new)
    for number in [0, -1, Int64.max, Int64.min, 1 << 24] {
      #expect(table.remove(SubscriptionToken(rawValue: number)) == nil)
    }
  }

  @Test("a generation's subscriptions go at once, and the others keep their order")
  func ofGeneration() {
    let directory = ChannelDirectory()
    var table = Subscriptions(directory: directory, worker: 0)
    let tokens = (0..<10).map { table.insert(news, LuaReference(index: $0), codeGeneration: Int($0) % 2)! }
    let other = table.insert(sport, LuaReference(index: 10), codeGeneration: 1)!
    #expect(table.removeAll(of: 1).map(\.index).sorted() == [1, 3, 5, 7, 9, 10])
    #expect(table.tokens(of: news) == tokens.enumerated().filter { $0.offset % 2 == 0 }.map(\.element))
    #expect(table.tokens(of: sport) == [] && directory.subscribers(sport).isEmpty && directory.subscribers(news) == [0])
    #expect(table.count == 5 && table[other] == nil && table[tokens[1]] == nil && table[tokens[2]] != nil)
    #expect(table.removeAll(of: 1) == [])
    // The places are used again, one each.
    let again = (0..<6).map { table.insert(sport, LuaReference(index: $0), codeGeneration: 2)!.slot }
    #expect(Set(again).isDisjoint(with: [0, 2, 4, 6, 8]) && Set(again).count == 6)
  }

  @Test("at the bound there is no further subscription")
  func bound() {
    var table = Subscriptions(directory: ChannelDirectory(), worker: 0)
    var tokens: [SubscriptionToken] = []
    for index in 0..<Subscriptions.subscriptionsMax {
      tokens.append(table.insert(ChannelName(text: "\(index % 100)"), LuaReference(index: 1), codeGeneration: 1)!)
    }
    #expect(table.insert(news, LuaReference(index: 1), codeGeneration: 1) == nil)
    #expect(table.remove(tokens[7]) != nil)
    #expect(table.insert(news, LuaReference(index: 1), codeGeneration: 1) != nil)
  }

  @Test("the directory lists each worker once, whatever the others do")
  func workers() {
    let directory = ChannelDirectory()
    for worker in 0..<3 { directory.enter(worker, news) }
    directory.leave(1, news)
    directory.leave(1, sport)
    #expect(directory.subscribers(news).sorted() == [0, 2])
    directory.leave(0, news)
    directory.leave(2, news)
    #expect(directory.subscribers(news).isEmpty)
  }
}
