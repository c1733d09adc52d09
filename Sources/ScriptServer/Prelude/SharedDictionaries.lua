-- moonport.shared: one object for each dictionary.
local prelude, native = ...

local format = string.format
local error, type = error, type
local check_options = prelude.check_options

local shared_options = { max_memory = "count" }
local dictionaries = {}

-- The dictionary of a name: one object for all that ask in this state.
local function shared(generation, name, options)
  local known = dictionaries[name]
  if known and options == nil then return known end
  if type(name) ~= "string" then
    error("bad argument #1 to 'shared' (string expected, got " .. (name == nil and "no value" or type(name)) .. ")", 2)
  end
  if #name == 0 or #name > 255 then error("moonport.shared: a name has 1 to 255 bytes", 2) end
  local max_memory
  if options ~= nil then
    if type(options) ~= "table" then
      error("bad argument #2 to 'shared' (table expected, got " .. type(options) .. ")", 2)
    end
    check_options("moonport.shared", options, shared_options, 2)
    max_memory = options.max_memory
    if max_memory and max_memory < 4096 then
      error(format("moonport.shared: option 'max_memory' must be at least 4096 bytes, not %d", max_memory), 2)
    end
  end
  local made, problem = native.shared(name, max_memory, generation.loading)
  if not made then return nil, problem end
  dictionaries[name] = known or made
  return dictionaries[name]
end

prelude.shared = shared
