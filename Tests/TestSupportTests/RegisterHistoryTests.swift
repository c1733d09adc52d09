import TestSupport
import Testing

@Suite struct RegisterHistoryTests {
  private func step(_ step: RegisterStep, _ began: Int, _ ended: Int) -> RegisterOperation {
    RegisterOperation(step, began: began, ended: ended)
  }

  @Test func `operations at once may have happened in either order`() {
    for seen: RegisterValue? in [nil, .integer(1)] {
      #expect(isLinearizable([[step(.set(.integer(1)), 0, 3)], [step(.get(seen), 1, 2)]]))
    }
  }

  @Test func `an old value that is read after the new one was written is found`() {
    #expect(!isLinearizable([[step(.set(.integer(1)), 0, 1)], [step(.get(nil), 2, 3)]]))
  }

  @Test func `a new value that is read before an old one is found`() {
    let reader = [step(.get(.integer(1)), 1, 2), step(.get(nil), 3, 4)]
    #expect(!isLinearizable([[step(.set(.integer(1)), 0, 9)], reader]))
  }

  @Test func `a lost increment is found`() {
    let one = [step(.increment(1, initial: 0, sum: 1), 0, 3)]
    let two = [step(.increment(1, initial: 0, sum: 1), 1, 2)]
    #expect(!isLinearizable([one, two]))
    #expect(isLinearizable([one, [step(.increment(1, initial: 0, sum: 2), 1, 2)]]))
  }

  @Test func `of two that set the same old value one at most can have succeeded`() {
    let swap = RegisterStep.compareAndSet(nil, .text("a"), done: true)
    #expect(!isLinearizable([[step(swap, 0, 3)], [step(swap, 1, 2)]]))
    #expect(isLinearizable([[step(swap, 0, 3)], [step(.compareAndSet(nil, .text("b"), done: false), 1, 2)]]))
  }

  @Test func `adding, replacing and deleting tell whether there was a value`() {
    let steps: [RegisterStep] = [
      .replace(.integer(1), done: false), .add(.integer(2), done: true), .add(.integer(3), done: false),
      .get(.integer(2)), .delete(existed: true), .delete(existed: false), .get(nil),
    ]
    let operations = steps.enumerated().map { step($1, 2 * $0, 2 * $0 + 1) }
    #expect(isLinearizable([operations]))
    #expect(!isLinearizable([operations.dropLast() + [step(.get(.integer(2)), 98, 99)]]))
  }
}
