// Which folders inotify must watch so that no change of a set of paths goes unseen: every folder on the way to each
// file, through every symbolic link. Knows nothing of content, time or triggers.

import Glibc

/// A file that an event may concern.
struct WatchInterest: Equatable {
  /// The file's place in the list given to `rebuild`.
  let file: Int
  /// The event's name is the file itself, not a folder or a link on the way to it.
  let isLast: Bool
}

/// The inotify watches behind a set of paths (inotify(7)). Does not own the descriptor.
struct FolderWatches {
  /// One watched folder: its real path and the names in it that matter.
  struct Folder {
    let path: String
    var interests: [String: [WatchInterest]] = [:]
  }

  /// The kernel gives up on a path after 40 links too (path_resolution(7)).
  static let linksMax = 40

  /// What moves a name: such an event means that paths may lead elsewhere now.
  static let nameChanges = UInt32(IN_CREATE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE)
  /// What ends a folder under its path.
  static let folderEnds = UInt32(IN_DELETE_SELF | IN_MOVE_SELF | IN_IGNORED | IN_UNMOUNT)
  /// A folder on the way tells what happens to its names; IN_MASK_ADD lets a second path add to the first one's mask.
  private static let wayMask =
    nameChanges | UInt32(IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR | IN_EXCL_UNLINK | IN_MASK_ADD)
  /// The folder that holds a file also tells what is written into it.
  private static let holderMask = wayMask | UInt32(IN_MODIFY | IN_CLOSE_WRITE | IN_ATTRIB)

  private let descriptor: CInt
  private(set) var folders: [CInt: Folder] = [:]
  /// Why some change may go unseen, in words for the operator; nil when everything is watched.
  private(set) var problem: String?

  init(descriptor: CInt) { self.descriptor = descriptor }

  /// Watches all folders that `paths` (absolute) lead through now, and no others. Returns the places in `paths` of
  /// those whose way leads through one of `newFolders`.
  ///
  /// Each folder is watched before its names are looked at, so a change after the look is always an event.
  mutating func rebuild(for paths: [String], newFolders: Set<String>) -> Set<Int> {
    let before = folders
    folders = [:]
    problem = nil
    var walk = Walk(newFolders: newFolders)
    for (index, path) in paths.enumerated() { follow(path, index: index, walk: &walk) }
    for watch in before.keys where folders[watch] == nil { inotify_rm_watch(descriptor, watch) }
    return walk.newFiles
  }

  /// What one rebuild remembers while it goes along the paths.
  private struct Walk {
    let newFolders: Set<String>
    var newFiles: Set<Int> = []
    /// The watches by folder; nil for a folder that could not be watched.
    var watches: [String: CInt?] = [:]
    var holders: Set<String> = []
  }

  /// Goes along one path as the kernel does, name by name.
  private mutating func follow(_ path: String, index: Int, walk: inout Walk) {
    var names = Self.names(path)
    var folder = "/"
    var links = 0
    while let name = names.popLast() {
      if name == ".." {
        folder = Self.parent(folder)
        continue
      }
      watch(folder, name: name, interest: WatchInterest(file: index, isLast: names.isEmpty), walk: &walk)
      let full = ScriptLocation.join(folder, name)
      if walk.newFolders.contains(full) { walk.newFiles.insert(index) }
      switch Self.kind(of: full) {
      case .link(let target):
        links += 1
        if links > Self.linksMax { return }
        if target.hasPrefix("/") { folder = "/" }
        names += Self.names(target)
      case .folder:
        folder = full
      case .other:
        return
      }
    }
  }

  private mutating func watch(_ folder: String, name: String, interest: WatchInterest, walk: inout Walk) {
    let needsAdding = walk.watches[folder] == nil || (interest.isLast && !walk.holders.contains(folder))
    if needsAdding {
      if interest.isLast { walk.holders.insert(folder) }
      let mask = interest.isLast ? Self.holderMask : Self.wayMask
      let watch = unsafe inotify_add_watch(descriptor, folder, mask)
      if watch < 0 { note(errno, folder: folder, isHolder: interest.isLast) }
      walk.watches.updateValue(watch < 0 ? nil : watch, forKey: folder)
    }
    guard let known = walk.watches[folder], let watch = known else { return }
    folders[watch, default: Folder(path: folder)].interests[name, default: []].append(interest)
  }

  /// A folder that vanished is its parent's event; one on the way that may be passed but not listed is seldom replaced.
  /// The rest leaves changes unseen.
  private mutating func note(_ code: CInt, folder: String, isHolder: Bool) {
    switch code {
    case ENOENT, ENOTDIR: return
    case EACCES where !isHolder: return
    case ENOSPC:
      problem = "\(folder): not watched: this user's inotify watches are used up; raise fs.inotify.max_user_watches"
    default:
      problem = unsafe "\(folder): not watched: \(String(cString: strerror(code))); reload by hand after a change"
    }
  }

  private enum Kind {
    case link(target: String)
    case folder
    case other
  }

  private static func kind(of path: String) -> Kind {
    var status = stat()
    guard unsafe lstat(path, &status) == 0 else { return .other }
    switch status.st_mode & S_IFMT {
    case S_IFDIR: return .folder
    case S_IFLNK: return target(ofLink: path).map(Kind.link) ?? .other
    default: return .other
    }
  }

  private static func target(ofLink path: String) -> String? {
    let bytes = unsafe [UInt8](unsafeUninitializedCapacity: Int(PATH_MAX)) { buffer, filled in
      let count = unsafe buffer.withMemoryRebound(to: CChar.self) { unsafe readlink(path, $0.baseAddress!, $0.count) }
      filled = max(0, count)
    }
    return bytes.isEmpty ? nil : String(decoding: bytes, as: UTF8.self)
  }

  /// The names of a path, last one first.
  private static func names(_ path: String) -> [String] {
    path.split(separator: "/").filter { $0 != "." }.reversed().map(String.init)
  }

  private static func parent(_ folder: String) -> String {
    guard let slash = folder.lastIndex(of: "/"), slash != folder.startIndex else { return "/" }
    return String(folder[..<slash])
  }
}
