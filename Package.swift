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
/// message. Small functions of one target are inlined into the next.
let hotPath: [SwiftSetting] =
  strict + [
    .unsafeFlags(["-enforce-exclusivity=unchecked", "-cross-module-optimization"], .when(configuration: .release))
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
    .package(url: "https://github.com/apple/swift-log", from: "1.16.0"),
    .package(url: "https://github.com/apple/swift-system", from: "1.4.0"),
    .package(url: "https://github.com/HdrHistogram/hdrhistogram-swift", from: "0.2.0"),
  ],
  targets: [
    .target(name: "CLinux"),
    // The archive, so that calls into Lua are direct; behind it the shared library, which has the linker export the archive's
    // functions: C libraries that a script requires call them.
    .target(
      name: "CLua",
      linkerSettings: [
        .linkedLibrary(":liblua5.4.a"), .linkedLibrary("lua5.4"), .linkedLibrary("m"), .linkedLibrary("dl"),
      ]),
    .target(
      name: "CompletionIO",
      dependencies: ["CLinux", .product(name: "SystemPackage", package: "swift-system")],
      swiftSettings: strict),
    .target(name: "Codecs", swiftSettings: hotPath),
    .target(name: "LuaRuntime", dependencies: ["CLua"], swiftSettings: hotPath),
    .target(
      name: "ScriptServer",
      dependencies: [
        "CompletionIO", "Codecs", "LuaRuntime", .product(name: "Logging", package: "swift-log"),
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
      swiftSettings: strict),
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
