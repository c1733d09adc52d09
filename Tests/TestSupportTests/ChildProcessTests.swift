// Proves the process half of the test support on small programs of every system.

import Glibc
import TestSupport
import Testing

@Suite struct ChildProcessTests {
  @Test func `collects both streams and the exit status`() throws {
    let child = try ChildProcess(Launch("/bin/sh", ["-c", "echo to output; echo to errors >&2; exit 7"]))
    #expect(try child.waitForExit() == .exited(7))
    #expect(child.output.text == "to output\n")
    #expect(child.errors.text == "to errors\n")
  }

  @Test func `tells the signal that ended a child`() throws {
    let child = try ChildProcess(Launch("/bin/cat", [])) { $0.streams = .pipe }
    child.sendSignal(SIGTERM)
    #expect(try child.waitForExit() == .signaled(SIGTERM))
    #expect(!child.isRunning)
  }

  @Test func `a child that goes on is a failure that shows its output`() throws {
    let child = try ChildProcess(Launch("/bin/sh", ["-c", "echo still here; exec cat"])) { $0.streams = .pipe }
    try child.waitForOutput(containing: "still here")
    #expect {
      try child.waitForExit(timeout: 0.05)
    } throws: {
      contains("\($0)", "still here")
    }
  }

  @Test func `what is typed reaches the child and the end of input ends it`() throws {
    let child = try ChildProcess(Launch("/bin/cat", [])) { $0.streams = .pipe }
    try child.type("one\n")
    try child.waitForOutput(containing: "one\n")
    try child.type("two\n")
    child.closeInput()
    #expect(try child.waitForExit() == .exited(0))
    #expect(child.output.text == "one\ntwo\n")
  }

  @Test func `a terminal is a terminal and shows what is typed`() throws {
    let script = "test -t 0 && test -t 1 && echo both; read line; echo \"got $line\""
    let child = try ChildProcess(Launch("/bin/sh", ["-c", script])) { $0.streams = .terminal }
    try child.waitForOutput(containing: "both")
    try child.type("hello\n")
    #expect(try child.waitForExit() == .exited(0))
    #expect(contains(child.output.text, "got hello"))
  }

  @Test func `only standard input may be a terminal`() throws {
    let script = "test -t 0 && ! test -t 1 && echo input only"
    let child = try ChildProcess(Launch("/bin/sh", ["-c", script])) { $0.streams = .terminalInput }
    #expect(try child.waitForExit() == .exited(0))
    #expect(child.output.text == "input only\n")
  }

  @Test func `environment, working folder and descriptor limit are the launch's`() throws {
    let folder = try TemporaryFolder()
    let script = "echo \"$GREETING ${HOME-none} $(ulimit -n)\"; pwd -P"
    let child = try ChildProcess(Launch("/bin/sh", ["-c", script])) {
      $0.environment = ["GREETING": "hello", "HOME": nil]
      $0.workingFolder = folder.path
      $0.descriptorsMax = 64
    }
    #expect(try child.waitForExit() == .exited(0))
    #expect(child.output.text == "hello none 64\n\(folder.path)\n")
  }

  @Test func `a child inherits the three standard streams and nothing else`() throws {
    let listener = try TestListener()
    let child = try ChildProcess(Launch("/bin/cat", [])) { $0.streams = .pipe }
    try child.type("started\n")
    try child.waitForOutput(containing: "started")
    #expect(try child.descriptorCount() == 3)
    withExtendedLifetime(listener) {}
  }

  @Test func `a child ends with the last reference to it`() throws {
    let pid: pid_t
    do {
      let child = try ChildProcess(Launch("/bin/cat", [])) { $0.streams = .pipe }
      pid = child.pid
      #expect(kill(pid, 0) == 0)
    }
    try eventually("process \(pid) is gone") { kill(pid, 0) < 0 && errno == ESRCH }
  }

  @Test func `the kernel's figures of a busy process grow`() throws {
    let child = try ChildProcess(Launch("/bin/sh", ["-c", "while :; do :; done"]))
    try eventually("it has used 20 ms of a processor") { try child.processorSeconds() > 0.02 }
    #expect(try child.residentBytes() > 100_000)
    #expect(try child.threadCount() == 1)
    try child.kill()
  }

  @Test func `a program that is not there is an error`() {
    #expect(throws: TestFailure.self) { try ChildProcess(Launch("/nowhere/at/all")) }
  }
}
