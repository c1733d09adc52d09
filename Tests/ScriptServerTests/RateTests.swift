// Token buckets: what a rate's settings mean, and the bounded table of client addresses.

import Testing

@testable import ScriptServer

@Suite struct RateTests {
  @Test func `a rate of 0 is none; the burst is one second's worth unless it is said`() {
    #expect(Rate(perSecond: 0, burst: 5) == nil)
    #expect(Rate(perSecond: .nan, burst: 5) == nil)
    #expect(Rate(perSecond: 10, burst: 0)?.burst == 10)
    #expect(Rate(perSecond: 10, burst: 0)?.intervalNanoseconds == 100_000_000)
    #expect(Rate(perSecond: 0.5, burst: 0)?.burst == 1)
    #expect(Rate(perSecond: 10, burst: 3)?.burst == 3)
    #expect(Rate(perSecond: 1e300, burst: .max)?.burst == Rate.burstMax)
    #expect(Rate(perSecond: 1e300, burst: 0)?.intervalNanoseconds == 1)
    #expect(Rate(perSecond: 1e-300, burst: 0)?.intervalNanoseconds == 86_400_000_000_000)
  }

  @Test func `an address gets its burst at once, then one in each interval, and a full burst again after a rest`()
    throws
  {
    let rate = try #require(Rate(perSecond: 10, burst: 3))
    let rates = AddressRates()
    let start: UInt64 = 1_000_000_000_000
    func takes(_ address: UInt64, _ milliseconds: UInt64) -> Bool {
      rates.take(address, rate, now: start + milliseconds * 1_000_000)
    }
    for _ in 0..<3 { #expect(takes(7, 0)) }
    #expect(!takes(7, 0))
    #expect(!takes(7, 99))
    #expect(takes(8, 99), "another address has its own")
    #expect(takes(7, 100))
    #expect(!takes(7, 101))
    for _ in 0..<3 { #expect(takes(7, 10_000)) }
    #expect(!takes(7, 10_000))
  }

  @Test func `being refused costs nothing: who comes too often still gets the rate`() throws {
    let rate = try #require(Rate(perSecond: 1, burst: 1))
    let rates = AddressRates()
    let taken = (0..<10_000).filter { rates.take(1, rate, now: 1_000_000_000 + UInt64($0) * 1_000_000) }
    #expect(taken.count == 10)
  }

  @Test func `more addresses than there is room for are all let in, and the busiest is still held to its rate`() throws
  {
    let rate = try #require(Rate(perSecond: 1, burst: 2))
    let rates = AddressRates()
    var random = SystemRandomNumberGenerator()
    var now: UInt64 = 1_000_000_000
    for _ in 0..<2 { #expect(rates.take(1, rate, now: now)) }
    var refusals = 0
    for _ in 0..<2 * AddressRates.addressesMax {
      #expect(rates.take(UInt64.random(in: 2...UInt64.max, using: &random), rate, now: now))
      now += 1000
      if !rates.take(1, rate, now: now) { refusals += 1 }
    }
    // The table was overrun twice in 0.13 s; forgotten now and then, the busy one had a few bursts too many.
    #expect(refusals > AddressRates.addressesMax)
  }
}
