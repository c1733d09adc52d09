-- Codecs as scripts name them: their options, and the two functions of a codec written in Lua.
local prelude, native, connection = ...

local format = string.format
local math_type, getinfo, error, select, type, pairs = math.type, debug.getinfo, error, select, type, pairs
local check_options, describe, keys, kinds = prelude.check_options, prelude.describe, prelude.keys, prelude.kinds

local codec_options = {
  raw = {},
  line = { max_length = "integer" },
  delimiter = { delimiter = "string", max_length = "integer" },
  fixed = { length = "integer" },
  length = {
    size = "integer", endian = "string", offset = "integer", adjustment = "integer", strip = "integer",
    max_length = "integer",
  },
  netstring = { max_length = "integer" },
}

local scripted_options = { decode = "function", encode = "function", max_length = "integer" }

-- The number of a codec on this worker, entered if it is new. It belongs to the generation that loads, where `is_listeners`, or to the
-- connection that is to use it.
local function codec_number(where, spec, is_listeners, level)
  if type(spec) == "string" then spec = { type = spec } end
  local name = spec.type
  if name == nil and (spec.decode or spec.encode) then
    check_options(where .. ": codec", spec, scripted_options, level + 1)
    if not spec.decode or not spec.encode then
      error(where .. ": a codec of your own needs both decode and encode", level + 1)
    end
  elseif not codec_options[name] then
    error(format("%s: unknown codec %s; there are %s, and { decode = f, encode = g }",
      where, describe(name), keys(codec_options)), level + 1)
  else
    local options = {}
    for key, value in pairs(spec) do if key ~= "type" then options[key] = value end end
    check_options(format('%s: codec "%s"', where, name), options, codec_options[name], level + 1)
  end
  local number, reason = native.codec(
    name or "", is_listeners, spec.max_length, spec.delimiter, spec.length, spec.size, spec.endian, spec.offset,
    spec.adjustment, spec.strip, spec.decode, spec.encode)
  if not number then error(where .. ": " .. reason, level + 1) end
  return number
end

local function check_connection(conn, method)
  if not native.is_connection(conn) then
    error(format("bad argument #1 to '%s' (connection expected, got %s)", method, conn == nil and "no value" or type(conn)), 3)
  end
end

function connection.set_codec(conn, spec)
  check_connection(conn, "set_codec")
  if kinds.codec(spec) then
    error("bad argument #1 to 'set_codec' (a codec's name or table expected, got " .. type(spec) .. ")", 2)
  end
  return native.use_codec(conn, codec_number("conn:set_codec", spec, false, 2))
end

-- Raises an error about what a function of a codec returned; its place is the function's, since none of its lines runs any more.
local function reject(f, ...)
  local info = getinfo(f, "S")
  local place = info.what == "C" and "" or format("%s:%d: ", info.short_src, info.linedefined)
  error(place .. format(...), 0)
end

local function decode(f, bytes, position)
  local message, next_position = f(bytes, position)
  if message == nil and next_position == nil then return nil end
  if message == nil then reject(f, "decode must return a message and the next position, or nothing") end
  if math_type(next_position) ~= "integer" or next_position <= position or next_position > #bytes + 1 then
    reject(f, "decode must return beside a message the next position, an integer from %d to %d here, not %s",
      position + 1, #bytes + 1, describe(next_position))
  end
  return next_position, message
end

local function encode(g, message)
  local bytes = g(message)
  if type(bytes) ~= "string" then reject(g, "encode must return a string, not %s", describe(bytes)) end
  return bytes
end

prelude.check_connection = check_connection
prelude.codec_number = codec_number
prelude.decode = decode
prelude.encode = encode
