-- moonport.connect: its options and handlers.
local prelude, native = ...

local find, format = string.find, string.format
local concat, error, type, pairs = table.concat, error, type, pairs
local check_options, codec_number, describe = prelude.check_options, prelude.codec_number, prelude.describe
local handler_names, known_handlers = prelude.handler_names, prelude.known_handlers
local outgoing_handlers = prelude.outgoing_handlers

local connect_options = { codec = "codec", timeout = "seconds", handler = "table" }

-- Seconds that a connection may take to be made, its name's look-up included.
local connect_seconds = 10

local function check_outgoing_handlers(handlers)
  for name, value in pairs(handlers) do
    if type(name) == "string" and find(name, "^on_") then
      if not known_handlers[name] then
        error(format("moonport.connect: unknown handler '%s'; the handlers are %s", name, concat(handler_names, ", ")), 3)
      end
      if type(value) ~= "function" then
        error(format("moonport.connect: handler '%s' must be a function, not %s", name, describe(value)), 3)
      end
    end
  end
end

-- What a table's metatable gives is looked at, too.
local function check_found(name, value)
  if value ~= nil and type(value) ~= "function" then
    error(format("moonport.connect: handler '%s' must be a function, not %s", name, describe(value)), 3)
  end
end

local function connect(generation, address, options)
  if type(address) ~= "string" then
    error(format("bad argument #1 to 'connect' (string expected, got %s)", address == nil and "no value" or type(address)), 2)
  end
  -- Raises where nothing can wait, before anything is entered for the connection.
  local problem = native.connect(address)
  if problem then error("moonport.connect: " .. problem, 2) end
  if options == nil then options = {} end
  if type(options) ~= "table" then
    error(format("bad argument #2 to 'connect' (table expected, got %s)", type(options)), 2)
  end
  check_options("moonport.connect", options, connect_options, 2)
  local handlers = options.handler
  local open, message, drain, close, fail
  if handlers then
    check_outgoing_handlers(handlers)
    open, message, drain, close, fail = outgoing_handlers(handlers)
    check_found("on_open", open) check_found("on_message", message) check_found("on_drain", drain)
    check_found("on_close", close) check_found("on_error", fail)
  end
  -- Nothing raises from here on, or a codec in Lua would be nobody's.
  local codec = options.codec or "raw"
  local number = codec_number("moonport.connect", codec, false, 2)
  local seconds = options.timeout or connect_seconds
  if not handlers then return native.begin_connect(address, number, seconds) end
  return native.begin_connect(address, number, seconds, generation.names[handlers], open, message, drain, close, fail)
end

prelude.connect = connect
