-- What a script finds as its globals, in either sandbox.
local prelude, native = ...

local find, format = string.find, string.format
local concat, pack, error, type, pairs, ipairs, select = table.concat, table.pack, error, type, pairs, ipairs, select
local tostring, load, loadfile, package = tostring, load, loadfile, package
local make_moonport, require = prelude.make_moonport, prelude.require

-- What both sandboxes have, and the standard one besides. A script gets copies of the libraries, so that what it changes in them ends
-- with its generation; only `string` is everybody's, since the methods of strings are looked up there.
local safe_globals = {
  "assert", "collectgarbage", "error", "getmetatable", "ipairs", "next", "pairs", "pcall", "rawequal", "rawget", "rawlen",
  "rawset", "select", "setmetatable", "tonumber", "tostring", "type", "warn", "xpcall", "_VERSION",
}
local safe_libraries = { "coroutine", "math", "table", "utf8" }
local standard_libraries = { "debug", "io", "os" }
local strict_os = { "time", "date", "clock", "difftime" }

local function print(...)
  local parts = pack(...)
  for index = 1, parts.n do parts[index] = tostring(parts[index]) end
  native.print(concat(parts, "\t"))
end

local function copy(library)
  local result = {}
  for name, value in pairs(library) do result[name] = value end
  return result
end

-- Puts functions that say why they cannot be had in the place of those that would harm the server.
local refusals = {
  os = {
    exit = "would end the server with all its clients; close connections, or stop the server by `moonport stop`",
    setlocale = "would change how all workers read and write numbers",
  },
  debug = {
    sethook = "would take away what ends a handler that runs for too long",
    debug = "would stop the worker until somebody types at its terminal",
    getregistry = "holds what the server itself keeps in this Lua state",
  },
}

local function refuse(libraries)
  for library, functions in pairs(refusals) do
    for name, why in pairs(functions) do
      libraries[library][name] = function() error(format("%s.%s %s", library, name, why), 2) end
    end
  end
end

-- The mode for Lua's own `load`: text, whatever the script asks for. Bytecode is not checked and can crash the process.
local function text_mode(mode)
  if mode == nil then return "t" end
  if type(mode) ~= "string" then return mode end
  return find(mode, "t", 1, true) and "t" or ""
end

local function add_loading(environment, is_strict)
  environment.load = function(chunk, name, mode, ...)
    if select("#", ...) == 0 then return load(chunk, name, text_mode(mode), environment) end
    if is_strict then error("load: an environment cannot be given in the strict sandbox", 2) end
    return load(chunk, name, text_mode(mode), (...))
  end
  if is_strict then return end
  environment.loadfile = function(path, mode, ...)
    if select("#", ...) == 0 then return loadfile(path, text_mode(mode), environment) end
    return loadfile(path, text_mode(mode), (...))
  end
  environment.dofile = function(path)
    local chunk, message = loadfile(path, "t", environment)
    if not chunk then error(message, 0) end
    return chunk()
  end
end

local function add_libraries(environment, loaded, is_strict)
  for _, name in ipairs(safe_globals) do environment[name] = _G[name] end
  for _, name in ipairs(safe_libraries) do environment[name] = copy(_G[name]) end
  environment.string = _G.string
  if is_strict then
    environment.os = {}
    for _, name in ipairs(strict_os) do environment.os[name] = os[name] end
  else
    for _, name in ipairs(standard_libraries) do environment[name] = copy(_G[name]) end
    refuse(environment)
  end
  for name, value in pairs(environment) do
    if type(value) == "table" then loaded[name] = value end
  end
end

local function make_package(loaded, is_strict)
  local own = { loaded = loaded, preload = {}, config = package.config }
  if is_strict then return own end
  own.path, own.cpath, own.searchpath, own.loadlib = package.path, package.cpath, package.searchpath, package.loadlib
  return own
end

local function make_environment(generation)
  local environment, loaded, is_strict = {}, generation.loaded, native.is_strict()
  add_libraries(environment, loaded, is_strict)
  add_loading(environment, is_strict)
  environment.print, environment.arg = print, generation.arguments
  environment._G, loaded._G = environment, environment
  loaded.moonport = make_moonport(generation)
  environment.package = make_package(loaded, is_strict)
  loaded.package = environment.package
  environment.require = function(name) return require(generation, name) end
  return environment
end

prelude.make_environment = make_environment
