// Where a script lies and how the names of its modules become paths. Text only: never touches the file system beyond
// asking for the current folder.

import Glibc

/// A script's place: its folder, its name in it, and how the user wrote both.
struct ScriptLocation: Sendable {
  /// The path as the user typed it.
  let typedPath: String
  /// Absolute, without a slash at its end unless it is the root.
  let folder: String
  /// The script's own file name.
  let name: String
  /// What the user typed before the script's name, with its slash; empty for a script of the current folder.
  private let typedFolder: String

  /// Nil when `path` cannot name a file: it is empty, ends with a slash or holds a NUL, or is relative and the current
  /// folder is gone.
  init?(_ path: String) {
    if path.isEmpty || path.hasSuffix("/") || path.utf8.contains(0) { return nil }
    var absolute = path
    if !path.hasPrefix("/") {
      guard let current = Self.currentFolder() else { return nil }
      absolute = Self.join(current, path)
    }
    guard let slash = absolute.lastIndex(of: "/") else { return nil }
    typedPath = path
    folder = slash == absolute.startIndex ? "/" : String(absolute[..<slash])
    name = String(absolute[absolute.index(after: slash)...])
    typedFolder = String(path.dropLast(name.count))
  }

  /// The absolute path of a name relative to the folder.
  func path(_ name: String) -> String { Self.join(folder, name) }

  /// A name relative to the folder as the user would type it.
  func displayName(_ name: String) -> String { typedFolder + name }

  /// Where a module may lie, relative to the folder, best first; none when the name would leave the folder.
  ///
  /// A dot separates folders, so `..` can never come out of a name; empty parts are what is left of it, of an absolute
  /// path and of a stray dot, and none of these is a module.
  static func candidates(for module: String) -> [String] {
    guard !module.utf8.contains(0), module.utf8.count <= SnapshotLimits.moduleNameBytesMax else { return [] }
    let parts = module.split(omittingEmptySubsequences: false) { $0 == "." || $0 == "/" }
    if parts.contains(where: \.isEmpty) { return [] }
    let stem = parts.joined(separator: "/")
    return [stem + ".lua", stem + "/init.lua"]
  }

  static func join(_ folder: String, _ name: String) -> String {
    folder.hasSuffix("/") ? folder + name : folder + "/" + name
  }

  /// getcwd(3), which allocates the answer itself when it gets no buffer.
  private static func currentFolder() -> String? {
    guard let text = unsafe getcwd(nil, 0) else { return nil }
    defer { unsafe free(text) }
    return unsafe String(cString: text)
  }
}
