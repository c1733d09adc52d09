// Some of a table's entries: where many match, a turn takes as many as it has time for.

extension Array {
  /// The first `limit` elements for which `condition` holds, or all if they are fewer.
  func first(_ limit: Int, where condition: (Element) -> Bool) -> [Element] {
    var found: [Element] = []
    for element in self where condition(element) {
      if found.count == limit { break }
      found.append(element)
    }
    return found
  }
}
