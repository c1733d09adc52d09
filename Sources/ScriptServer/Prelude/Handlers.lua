-- Tables of handlers: their names, and handing their functions over.
local prelude, native = ...

local find, format = string.find, string.format
local concat, getinfo, error, type, pairs, ipairs = table.concat, debug.getinfo, error, type, pairs, ipairs
local rawget = rawget
local describe = prelude.describe

local handler_names = {
  "on_open", "on_message", "on_drain", "on_close", "on_error", "on_start", "on_console", "on_stop", "on_save",
  "on_restore",
}
local known_handlers = {}
for _, name in ipairs(handler_names) do known_handlers[name] = true end

-- The handlers of an outgoing connection, in the order in which they are handed over.
local function outgoing_handlers(handlers)
  return handlers.on_open, handlers.on_message, handlers.on_drain, handlers.on_close, handlers.on_error
end

-- Whether a table within the one that a script returns is one of handlers for outgoing connections.
local function is_handlers(value)
  if type(value) ~= "table" then return false end
  local count = 0
  for _, name in ipairs { "on_open", "on_message", "on_drain", "on_close", "on_error" } do
    local handler = rawget(value, name)
    if handler ~= nil and type(handler) ~= "function" then return false end
    if handler then count = count + 1 end
  end
  return count > 0
end

-- Hands the functions of a handler table over; returns the number of the set. `place` is "file:line" for an error about a value
-- that has no line of its own.
local function enter_handlers(place, handlers)
  for name, value in pairs(handlers) do
    if type(name) == "string" and find(name, "^on_") then
      if type(value) ~= "function" then
        error(format("%s: handler '%s' must be a function, not %s", place, name, describe(value)), 0)
      end
      if not known_handlers[name] then
        local at = getinfo(value, "S")
        local line = at.what == "C" and place or format("%s:%d", at.short_src, at.linedefined)
        error(format("%s: unknown handler '%s'; the handlers are %s", line, name, concat(handler_names, ", ")), 0)
      end
    end
  end
  return native.handlers(
    handlers.on_open, handlers.on_message, handlers.on_drain, handlers.on_close, handlers.on_error,
    handlers.on_start, handlers.on_console, handlers.on_stop)
end

prelude.enter_handlers = enter_handlers
prelude.handler_names = handler_names
prelude.is_handlers = is_handlers
prelude.known_handlers = known_handlers
prelude.outgoing_handlers = outgoing_handlers
