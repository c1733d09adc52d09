// swift-tools-version: 6.2
import PackageDescription

/// What every Swift target is compiled with: unsafe lines are marked for audit, and a warning is an error.
let strict: [SwiftSetting] = [
  .strictMemorySafety(),
  .treatAllWarnings(as: .error),
  .enableUpcomingFeature("ExistentialAny"),
  .enableUpcomingFeature("MemberImportVisibility"),
]

/// For the targets on the way of a message: the owner of each datum is one thread and no access overlaps another, which the
/// compiler proves for locals and the sanitizers check for the rest; checking every class field at run time costs a tenth of a
/// message. Small functions of one target are inlined into the next where they are `public`: those that are `package` are not.
let hotPath: [SwiftSetting] =
  strict + [
    .unsafeFlags(["-enforce-exclusivity=unchecked", "-cross-module-optimization"], .when(configuration: .release))
  ]

/// How the released program is linked: with what it uses of Swift's libraries and without the rest, with addresses that the loader
/// fills in from a short list (DT_RELR, glibc 2.36), and with those of Lua's functions filled in at once, so that no call looks
/// them up. That takes a quarter off the memory of a server without clients, and a machine that only runs the program needs no
/// Swift.
let small: [LinkerSetting] = [
  .unsafeFlags(
    [
      "-static-stdlib", "-l_FoundationCShims", "-l_FoundationCollections", "-use-ld=lld", "-Xlinker",
      "--no-export-dynamic",
      "-Xlinker", "-z", "-Xlinker", "pack-relative-relocs", "-Xlinker", "-z", "-Xlinker", "now",
    ], .when(configuration: .release))
]

/// The part of the Lua interface that is written in Lua; see Prelude.swift for the order in which they run.
let preludeFiles = [
  "Broadcasts",
  "Channels",
  "Codecs",
  "Connections",
  "Environments",
  "Generations",
  "Handlers",
  "Listeners",
  "Logging",
  "Modules",
  "Moonport",
  "Offload",
  "Options",
  "Outgoing",
  "SharedDictionaries",
  "Tasks",
  "Timers",
]

let package = Package(
  name: "moonport",
  products: [
    .executable(name: "moonport", targets: ["moonport"]),
    .library(name: "CompletionIO", targets: ["CompletionIO"]),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.5.0"),
    .package(url: "https://github.com/apple/swift-collections", from: "1.1.0"),
    .package(url: "https://github.com/apple/swift-log", from: "1.16.0"),
    .package(url: "https://github.com/apple/swift-system", from: "1.4.0"),
    .package(url: "https://github.com/HdrHistogram/hdrhistogram-swift", from: "0.2.0"),
  ],
  targets: [
    .target(name: "CLinux"),
    // The shared library, since C libraries that a script requires call the same Lua.
    .target(name: "CLua", linkerSettings: [.linkedLibrary("lua5.4")]),
    .target(
      name: "CompletionIO",
      dependencies: ["CLinux", .product(name: "SystemPackage", package: "swift-system")],
      swiftSettings: strict),
    .target(name: "Codecs", swiftSettings: hotPath),
    .target(name: "LuaRuntime", dependencies: ["CLua"], swiftSettings: hotPath),
    .target(
      name: "ScriptServer",
      dependencies: [
        "CompletionIO", "Codecs", "LuaRuntime", .product(name: "DequeModule", package: "swift-collections"),
        .product(name: "Logging", package: "swift-log"),
      ],
      resources: preludeFiles.map { .embedInCode("Prelude/\($0).lua") },
      swiftSettings: hotPath),
    .target(
      name: "LoadGenerator",
      dependencies: [
        "CLinux", "CompletionIO", "Codecs", .product(name: "SystemPackage", package: "swift-system"),
        .product(name: "Histogram", package: "hdrhistogram-swift"),
      ],
      swiftSettings: hotPath),
    .executableTarget(
      name: "moonport",
      dependencies: [
        "ScriptServer", "LoadGenerator", "CompletionIO",
        .product(name: "Histogram", package: "hdrhistogram-swift"),
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
      ],
      swiftSettings: strict,
      linkerSettings: small),
    .testTarget(name: "CodecsTests", dependencies: ["Codecs"]),
    .testTarget(
      name: "CompletionIOTests",
      dependencies: ["CompletionIO", .product(name: "SystemPackage", package: "swift-system")]),
    .testTarget(name: "LuaRuntimeTests", dependencies: ["LuaRuntime", "TestSupport"]),
    .testTarget(name: "LoadGeneratorTests", dependencies: ["LoadGenerator"]),
    .testTarget(name: "ScriptServerTests", dependencies: ["ScriptServer", "TestSupport"]),
    .target(name: "CTestSupport", path: "Tests/CTestSupport"),
    .target(name: "TestSupport", dependencies: ["CTestSupport"], path: "Tests/TestSupport"),
    .testTarget(name: "TestSupportTests", dependencies: ["TestSupport"]),
    .testTarget(name: "EndToEndTests", dependencies: ["TestSupport", "moonport"]),
  ]
)
