// The user that a server started by root becomes (`--user`). From the start it reads, runs and makes files as that user; only
// while it binds addresses is it root again, until it gives that up for good. Must never know what is bound.

import CLinux
import Glibc

/// One change of user, on its way.
///
/// The groups are changed first and for good. Of the user, only the effective one is changed at first: that decides what files
/// may be read and whom new ones belong to, so that a script that the user may not read fails at the start and not at the first
/// reload. `giveUp` makes it irrevocable, in all threads: the C library sees to that.
final class UserChange {
  let name: String
  private let user: uid_t
  private(set) var isFinal = false

  /// Begins to act as `name`; throws, with nothing done, when this process is not root's or there is no such user.
  init(to name: String) throws(ServerFailure) {
    self.name = name
    guard geteuid() == 0 else {
      throw .script(
        "--user \(name): only a server that root starts can become another user; this one runs as user \(geteuid())")
    }
    var user: uid_t = 0
    var group: gid_t = 0
    let problem = unsafe clinux_find_user(name, &user, &group)
    guard problem == 0 else {
      throw .script("--user \(name): " + (problem == ENOENT ? "there is no such user" : systemMessage(problem)))
    }
    guard user != 0 else { throw .script("--user \(name): that is root, who has nothing to give up") }
    self.user = user
    guard unsafe clinux_join_groups(name, group) == 0 else {
      throw .script("--user \(name): its groups cannot be taken on: \(systemMessage(errno))")
    }
    try check(clinux_act_as(user))
  }

  /// Runs `body` as root, as long as that was not given up.
  func asRoot<Result: ~Copyable, Failure: Error>(_ body: () throws(Failure) -> Result) throws(Failure) -> Result {
    if isFinal || clinux_act_as(0) != 0 { return try body() }
    defer {
      // Only a system that is out of memory could refuse this, and going on as root is no choice.
      if clinux_act_as(user) != 0 { abort() }
    }
    return try body()
  }

  /// Becomes the user in all respects and for good, and proves it.
  func giveUp() throws(ServerFailure) {
    isFinal = true
    try check(clinux_become(user))
    guard clinux_can_regain_root() == 0 else {
      throw .script("--user \(name): this system lets the process become root again, so it does not go on")
    }
    clinux_allow_own_inspection()
  }

  private func check(_ result: Int32) throws(ServerFailure) {
    if result != 0 { throw .script("--user \(name): cannot become that user: \(systemMessage(errno))") }
  }
}
