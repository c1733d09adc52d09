-- Options and how wrong ones are told: the kinds of values, and errors that name the option, what it should be and what it is.
local prelude = ...

local format = string.format
local math_type, concat, sort, error, type, pairs = math.type, table.concat, table.sort, error, type, pairs
local tostring = tostring

local function describe(value)
  if type(value) == "string" then return format("%q", value) end
  if type(value) == "number" or type(value) == "boolean" or value == nil then return tostring(value) end
  return "a " .. type(value)
end

local function keys(known)
  local names = {}
  for name in pairs(known) do names[#names + 1] = name end
  sort(names)
  return concat(names, ", ")
end

-- Kinds of option values: each returns nothing for a good value, or what was expected.
local kinds = {
  string = function(value) if type(value) ~= "string" then return "a string" end end,
  table = function(value) if type(value) ~= "table" then return "a table" end end,
  ["function"] = function(value) if type(value) ~= "function" then return "a function" end end,
  count = function(value)
    if math_type(value) ~= "integer" or value < 0 then return "an integer of at least 0" end
  end,
  integer = function(value) if math_type(value) ~= "integer" then return "an integer" end end,
  seconds = function(value)
    if type(value) ~= "number" or not (value >= 0) then return "a number of seconds, at least 0" end
  end,
  rate = function(value)
    if type(value) == "table" then return end
    if type(value) ~= "number" or not (value >= 0) then return "a number per second, at least 0, or a table" end
  end,
  codec = function(value)
    if type(value) ~= "string" and type(value) ~= "table" then return "a codec's name or table" end
  end,
}

-- Checks a table of options against the names and kinds that are known; `level` is where the script called us.
local function check_options(where, options, known, level)
  for name, value in pairs(options) do
    local kind = known[name]
    if not kind then
      error(format("%s: unknown option %s; it knows %s", where, describe(name), keys(known)), level + 1)
    end
    local expected = kinds[kind](value)
    if expected then
      error(format("%s: option '%s' must be %s, not %s", where, name, expected, describe(value)), level + 1)
    end
  end
end

prelude.check_options = check_options
prelude.describe = describe
prelude.keys = keys
prelude.kinds = kinds
