import CompletionIO
import Glibc
import SystemPackage
import Testing

@Suite("Listeners")
struct ListenerTests {
  @Test("port 0 is resolved to the port that was bound", arguments: ["127.0.0.1:0", "[::1]:0", ":0"])
  func portZero(text: String) throws {
    let listener = try Listener.open(SocketAddress(parsing: text))
    let port = try #require(listener.address.port)
    #expect(port != 0)
    #expect(listener.address.description == text.dropLast() + "\(port)")
    listener.close()
  }

  @Test("every interface means version 4 and version 6, and version 4 peers look like it")
  func everyInterface() throws {
    let port = try CompletionPort()
    let (_, address) = try listen(port, at: ":0")
    let number = try #require(address.port)
    for host in ["127.0.0.1", "[::1]"] {
      let peer = try Peer(to: SocketAddress(parsing: "\(host):\(number)"))
      let accepted = Descriptor(adopting: CInt(try port.next().count))
      #expect(try SocketAddress.peer(of: accepted.rawValue) == SocketAddress.local(of: peer.descriptor))
      accepted.close()
    }
  }

  @Test("an address that is taken is an error that says so")
  func taken() throws {
    let first = try Listener.open(SocketAddress(parsing: "127.0.0.1:0"))
    let address = first.address
    #expect(throws: Errno.addressInUse) { try Listener.open(address).close() }
    first.close()
    try Listener.open(address).close()
  }

  @Test("a socket file is removed with its listener")
  func removed() throws {
    let folder = temporaryFolder()
    defer { rmdir(folder) }
    let path = folder + "/socket"
    let listener = try Listener.open(SocketAddress(parsing: "unix:" + path), permissions: 0o600)
    var status = stat()
    #expect(stat(path, &status) == 0 && status.st_mode & 0o777 == 0o600)
    #expect(try Peer(to: listener.address).descriptor >= 0)
    listener.close()
    #expect(access(path, F_OK) != 0)
  }

  @Test("the socket file of a dead server is replaced, that of a live one is not")
  func stale() throws {
    let folder = temporaryFolder()
    defer { rmdir(folder) }
    let address = try SocketAddress(parsing: "unix:\(folder)/socket")
    try Listener.open(address).take().close()
    #expect(access(folder + "/socket", F_OK) == 0)
    let second = try Listener.open(address)
    #expect(throws: Errno.addressInUse) { try Listener.open(address).close() }
    #expect(!address.removeStaleSocketFile())
    #expect(try Peer(to: second.address).descriptor >= 0)
    second.close()
  }

  @Test("a file that is no socket is never removed")
  func notASocket() throws {
    let folder = temporaryFolder()
    defer { rmdir(folder) }
    let path = folder + "/precious"
    close(open(path, O_CREAT | O_WRONLY, 0o600))
    #expect(throws: Errno.addressInUse) { try Listener.open(SocketAddress(parsing: "unix:" + path)).close() }
    #expect(access(path, F_OK) == 0)
    unlink(path)
  }

  @Test("a folder that does not exist is an error, not a trap")
  func missingFolder() throws {
    let address = try SocketAddress(parsing: "unix:/nonexistent/socket")
    #expect(throws: Errno.noSuchFileOrDirectory) { try Listener.open(address).close() }
  }
}
