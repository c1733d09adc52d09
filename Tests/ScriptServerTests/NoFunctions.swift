// For tests that need a Lua state and nothing in it.

import LuaRuntime

/// A library without functions. Libraries live as long as the program, so there is one for all tests.
let noFunctions = HostLibrary([])
