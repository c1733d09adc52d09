-- `require`: modules of the snapshot first, then the usual paths, each in the environment of its generation.
local prelude, native = ...

local format, gsub = string.format, string.gsub
local io_open, running, error, type, load, setmetatable = io.open, coroutine.running, error, type, load, setmetatable
local package = package

local function read_file(path)
  local file, problem = io_open(path, "rb")
  if not file then return nil, problem end
  local text = file:read("a")
  file:close()
  return text
end

-- Finds a module outside the script's folder, by the usual paths: Lua text gets the generation's environment, a C library is
-- loaded as the standard `require` does it.
local function find_elsewhere(generation, name)
  if native.is_strict() then return nil, "\n\tno other place: the sandbox is strict" end
  local path, tried = package.searchpath(name, generation.environment.package.path)
  if path then
    local text, problem = read_file(path)
    if not text then error(problem, 0) end
    local chunk, message = load(gsub(text, "^#[^\n]*", "", 1), "@" .. path, "t", generation.environment)
    if not chunk then error(message, 0) end
    return chunk, path
  end
  tried = "\n\t" .. tried
  package.cpath = generation.environment.package.cpath
  for index = 3, #package.searchers do
    local loader, data = package.searchers[index](name)
    if type(loader) == "function" then return loader, data end
    if type(loader) == "string" then tried = tried .. "\n\t" .. loader end
  end
  return nil, tried
end

local function find_module(generation, name)
  local preloaded = generation.environment.package.preload
  local loader = type(preloaded) == "table" and preloaded[name]
  if type(loader) == "function" then return loader, ":preload:" end
  local source, place = native.module(generation.number, name)
  if source then
    local chunk, message = load(source, place, "t", generation.environment)
    -- The place comes first: an editor looks for it there.
    if not chunk then error(format("%s (loading module '%s')", message, name), 0) end
    return chunk, place
  end
  local found, data = find_elsewhere(generation, name)
  if found then return found, data end
  error(format("module '%s' not found:%s%s", name, place, data), 3)
end

local function require(generation, name)
  if type(name) ~= "string" then
    error("bad argument #1 to 'require' (string expected, got " .. type(name) .. ")", 2)
  end
  local loaded = generation.loaded
  local value = loaded[name]
  if value ~= nil then return value end
  -- By coroutine, not just by name: a run that is ended by its budget does not come to the clean-up below.
  local thread = running()
  if generation.requiring[name] == thread then error(format("module '%s' requires itself", name), 2) end
  local loader, place = find_module(generation, name)
  generation.requiring[name] = thread
  -- Ends with the call however that ends, and leaves an error's traceback alone.
  local _ <close> = setmetatable({}, { __close = function() generation.requiring[name] = nil end })
  value = loader(name, place)
  if value ~= nil then loaded[name] = value end
  if loaded[name] == nil then loaded[name] = true end
  return loaded[name], place
end

prelude.require = require
