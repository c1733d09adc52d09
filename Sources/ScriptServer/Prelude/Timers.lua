-- moonport.after and moonport.every.
local prelude, native = ...

local format = string.format
local pack, unpack, error, type, select, setmetatable = table.pack, table.unpack, error, type, select, setmetatable
local describe, kinds = prelude.describe, prelude.kinds

local timer_methods = {}
timer_methods.__index = timer_methods
timer_methods.__name = "timer"

function timer_methods:cancel()
  return native.cancel_timer(self.number)
end

local function timer(where, repeats, seconds, f, ...)
  if kinds.seconds(seconds) then
    error(format("bad argument #1 to '%s' (a number of seconds, at least 0, expected, got %s)", where, describe(seconds)), 2)
  end
  if type(f) ~= "function" then
    error(format("bad argument #2 to '%s' (function expected, got %s)", where, type(f)), 2)
  end
  local run = f
  if select("#", ...) > 0 then
    local arguments = pack(...)
    run = function() return f(unpack(arguments, 1, arguments.n)) end
  end
  -- Made first: once the timer runs, nothing may fail any more.
  local object = setmetatable({ number = 0 }, timer_methods)
  local number, problem = native.timer(seconds, repeats, run)
  if not number then return nil, problem end
  object.number = number
  return object
end

prelude.timer = timer
