-- moonport.broadcast: its options.
local prelude, native = ...

local format = string.format
local math_type, error, type, pairs = math.type, error, type, pairs
local describe = prelude.describe

local broadcast_options = { room = true, except = true }

local function broadcast(message, options)
  if type(message) ~= "string" and type(message) ~= "number" then
    error("bad argument #1 to 'broadcast' (string expected, got " .. type(message) .. ")", 2)
  end
  if options == nil then return native.broadcast(message) end
  if type(options) ~= "table" then
    error("bad argument #2 to 'broadcast' (table expected, got " .. type(options) .. ")", 2)
  end
  for name in pairs(options) do
    if not broadcast_options[name] then
      error(format("moonport.broadcast: unknown option %s; it knows except, room", describe(name)), 2)
    end
  end
  local room = options.room
  if room ~= nil and type(room) ~= "string" then
    error("moonport.broadcast: option 'room' must be a string, not " .. describe(room), 2)
  end
  local except = options.except
  if except ~= nil and math_type(except) ~= "integer" and not native.is_connection(except) then
    error("moonport.broadcast: option 'except' must be a connection or an id, not " .. describe(except), 2)
  end
  return native.broadcast(message, room, except)
end

prelude.broadcast = broadcast
