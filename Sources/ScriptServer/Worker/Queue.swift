// First in, first out. (swift-collections' Deque does this, too, for a third of a megabyte of resident memory.)

/// A queue in one array, which is shortened once half of it is used up, so that one that is never empty does not grow.
struct Queue<Element> {
  private var elements: [Element] = []
  /// Where the first one stands; those before it are taken.
  private var first = 0

  /// Room that an empty queue keeps, in elements: more than this is rare.
  private static var keptMax: Int { 4096 }

  init() {}

  var count: Int { elements.count - first }
  var isEmpty: Bool { first == elements.count }
  /// Places in use, those of taken elements too.
  var placeCount: Int { elements.count }

  mutating func append(_ element: Element) { elements.append(element) }
  mutating func append(contentsOf others: [Element]) { elements += others }

  /// Takes the first one; nil when it is empty.
  mutating func popFirst() -> Element? {
    if isEmpty { return nil }
    let element = elements[first]
    first += 1
    if isEmpty {
      removeAll()
    } else if first >= Self.keptMax, first >= elements.count / 2 {
      elements.removeFirst(first)
      first = 0
    }
    return element
  }

  mutating func removeAll() {
    elements.removeAll(keepingCapacity: elements.count <= Self.keptMax)
    first = 0
  }
}
