// Proves how the program under test is started and understood, on a stand-in: a shell script with its command line.

import Glibc
import TestSupport
import Testing

@Suite struct MoonportProcessTests {
  /// A program that announces two listeners after some other lines, tells its arguments, and ends as asked.
  private static let standIn = """
    #!/bin/sh
    case $1 in
    run)
      echo "arguments: $*"
      echo "some warning first" >&2
      echo "listening on 127.0.0.1:6000" >&2
      echo "listening on unix:/tmp/a b" >&2
      trap 'exit 0' TERM
      while read -r line; do echo "typed $line"; done
      while :; do sleep 0.01; done ;;
    silent) exit 3 ;;
    *)
      echo "arguments: $*"
      cat
      echo oops >&2
      exit 5 ;;
    esac
    """

  @Test func `a server is started, announced, talked to, asked and stopped`() throws {
    let folder = try TemporaryFolder()
    let program = try folder.write("moonport", MoonportProcessTests.standIn)
    chmod(program, 0o755)
    try MoonportProcess.$standIn.withValue(program) { try useStandIn() }
  }

  private func useStandIn() throws {
    let server = try MoonportProcess(script: "return {}") {
      $0.listen = MoonportProcess.anyPort
      $0.workers = 2
      $0.scriptArguments = ["a", "b"]
      $0.streams = .pipe
      $0.listeners = 2
    }
    #expect(server.addresses == ["127.0.0.1:6000", "unix:/tmp/a b"])
    let arguments = "run \(server.scriptPath) --admin \(server.adminPath) --listen 127.0.0.1:0 --workers 2 -- a b"
    try server.waitForOutput(containing: "arguments: \(arguments)\n")
    try server.type("hello\n")
    try server.waitForOutput(containing: "typed hello")

    let result = try server.control("status", "--json")
    #expect(result.status == .exited(5))
    #expect(result.output == "arguments: status --admin \(server.adminPath) --json\n")
    #expect(result.errors == "oops\n")
    let piped = try MoonportProcess.runTool(["connect", "somewhere"], input: "lines\n")
    #expect(piped.output == "arguments: connect somewhere\nlines\n")

    server.child.closeInput()
    server.sendSignal(SIGTERM)
    #expect(try server.waitForExit() == .exited(0))

    #expect {
      // Three listeners never come, and what was printed instead is in the failure.
      _ = try MoonportProcess(script: "") {
        $0.listeners = 3
        $0.descriptorsMax = 1
      }
    } throws: {
      contains("\($0)", "listen")
    }
  }

  @Test func `the folder of a test goes with it, links and subfolders included`() throws {
    let other = try TemporaryFolder()
    try other.write("kept", "")
    let path: String
    do {
      let folder = try TemporaryFolder()
      path = folder.path
      try folder.write("deep/down/file", "text")
      try folder.replace("deep/down/file", "new text")
      try folder.link("away", to: other.path)
      #expect(access(folder.file("away/kept"), F_OK) == 0)
    }
    #expect(access(path, F_OK) != 0)
    #expect(access(other.file("kept"), F_OK) == 0)
  }
}
