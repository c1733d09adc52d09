import CompletionIO
import Glibc
import SystemPackage
import Testing

@Suite("Files")
struct FileTests {
  let port: CompletionPort

  init() throws { port = try CompletionPort() }

  @Test("a pipe is read until its writer closes it")
  func pipes() throws {
    let (key, writer) = try pipe(on: port)
    _ = port.submit(.read, on: key)
    #expect(port.poll().isEmpty)
    _ = Glibc.write(writer.descriptor, "line\n", 5)
    #expect(try port.next().text == "line\n")
    _ = port.submit(.read, on: key)
    writer.close()
    let end = try port.next()
    #expect(end.kind == .read && end.count == 0 && end.error == nil)
  }

  @Test("a full pipe makes a write wait until it is read")
  func fullPipe() throws {
    var ends: [CInt] = [0, 0]
    #expect(Glibc.pipe(&ends) == 0)
    _ = fcntl(ends[1], F_SETFL, O_NONBLOCK)
    let reader = Peer(ends[0])
    let key = try port.associate(Descriptor(adopting: ends[1]), as: .file)
    let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: 65536, alignment: 1)
    defer { bytes.deallocate() }
    bytes.initializeMemory(as: UInt8.self, repeating: 1)
    while case .completed = port.write(bytes, on: key) {}
    #expect(port.poll().isEmpty)
    var buffer = [UInt8](repeating: 0, count: 65536)
    _ = Glibc.read(reader.descriptor, &buffer, buffer.count)
    let seen = try port.next()
    #expect(seen.kind == .write && seen.count > 0)
    #expect(port.becomesQuiet())
  }

  @Test("a regular file, which epoll refuses, is always ready, and sockets get their turn beside it")
  func regularFile() throws {
    let folder = temporaryFolder()
    defer { rmdir(folder) }
    let path = folder + "/file"
    let descriptor = open(path, O_RDWR | O_CREAT, 0o600)
    unlink(path)
    let content = [UInt8](repeating: 65, count: 200_000)
    #expect(Glibc.write(descriptor, content, content.count) == content.count)
    lseek(descriptor, 0, SEEK_SET)
    let key = try port.associate(Descriptor(adopting: descriptor), as: .file)
    let (socket, peer) = try socketPair(on: port)
    _ = port.submit(.read, on: socket)
    peer.send("hello")
    #expect(try port.next().text == "hello")
    var bytes = 0
    while true {
      _ = port.submit(.read, on: key)
      let seen = try port.next()
      #expect(seen.kind == .read && seen.key == key && seen.error == nil)
      if seen.count == 0 { break }
      bytes += seen.count
    }
    #expect(bytes == 200_000)
    #expect(port.becomesQuiet())
    port.close(key)
    #expect(port.becomesQuiet())
  }

  @Test("an unreadable descriptor is an error of the read, not of the port")
  func directory() throws {
    let key = try port.associate(Descriptor(adopting: open("/tmp", O_RDONLY)), as: .file)
    _ = port.submit(.read, on: key)
    #expect(try port.next().error == .isDirectory)
  }
}
