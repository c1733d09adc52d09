-- moonport.log: fields laid out flat for the log, tables within tables included.
local prelude, native = ...

local format = string.format
local math_type, sort, unpack, error, type, pairs = math.type, table.sort, table.unpack, error, type, pairs
local ipairs, next, tostring, getmetatable = ipairs, next, tostring, getmetatable

-- What is looked at of one table: the log shows 64 fields and says how many it left out.
local log_fields_max = 1000
-- Tables within tables beyond this are data, and no event.
local log_depth_max = 8
-- Nor is a line with more values than this, of all its tables together.
local log_values_max = 10000

-- A table's names as text, in their order, and the values by these; and whether it is a list.
local function fields_of(value)
  local names, values, count = {}, {}, 0
  for name, item in pairs(value) do
    count = count + 1
    if count > log_fields_max then break end
    local text = tostring(name)
    if values[text] == nil then names[#names + 1] = text end
    values[text] = item
  end
  sort(names)
  -- Of a long one the first are seen, which are those of its list.
  local is_long_list = count > log_fields_max and #value >= count and math_type(next(value)) == "integer"
  return names, values, is_long_list or count > 0 and #value == count
end

-- Lays a value out for `native.log`: a letter of its type and its text, or its parts between brackets.
local function flatten(flat, value, depth)
  local kind = math_type(value) or type(value)
  local meta = getmetatable(value)
  if kind ~= "table" or depth > log_depth_max or #flat > log_values_max or type(meta) == "table" and meta.__tostring then
    flat[#flat + 1] = (kind == "integer" and "i" or kind == "float" and "n" or kind == "boolean" and "b" or "s") .. tostring(value)
    return
  end
  local names, values, is_list = fields_of(value)
  flat[#flat + 1] = is_list and "[" or "{"
  for index, name in ipairs(names) do
    if is_list then
      flatten(flat, value[index], depth + 1)
    else
      flat[#flat + 1] = "k" .. name
      flatten(flat, values[name], depth + 1)
    end
  end
  flat[#flat + 1] = is_list and "]" or "}"
end

local function log_function(level)
  return function(message, fields)
    if type(message) ~= "string" and type(message) ~= "number" then
      error(format("bad argument #1 to '%s' (string expected, got %s)", level, type(message)), 2)
    end
    if fields == nil then return native.log(level, message) end
    if type(fields) ~= "table" then
      error(format("bad argument #2 to '%s' (table expected, got %s)", level, type(fields)), 2)
    end
    local names, values = fields_of(fields)
    local flat = {}
    for _, name in ipairs(names) do
      flat[#flat + 1] = name
      flatten(flat, values[name], 1)
    end
    return native.log(level, message, unpack(flat))
  end
end

local log = {}
for _, level in ipairs { "debug", "info", "warn", "error" } do log[level] = log_function(level) end

prelude.log = log
