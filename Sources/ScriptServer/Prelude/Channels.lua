-- moonport.subscribe.
local prelude, native = ...

local error, type, setmetatable, getmetatable = error, type, setmetatable, getmetatable

local subscription_methods = {}
subscription_methods.__index = subscription_methods
subscription_methods.__name = "subscription"

function subscription_methods:cancel()
  if type(self) ~= "table" or getmetatable(self) ~= subscription_methods then
    error("bad argument #1 to 'cancel' (subscription expected, got " .. (self == nil and "no value" or type(self)) .. ")", 2)
  end
  return native.cancel_subscription(self.number)
end

local function subscribe(generation, channel, f)
  if type(channel) ~= "string" then
    error("bad argument #1 to 'subscribe' (string expected, got " .. type(channel) .. ")", 2)
  end
  if type(f) ~= "function" then
    error("bad argument #2 to 'subscribe' (function expected, got " .. type(f) .. ")", 2)
  end
  -- Made first: once it is subscribed, nothing may fail any more.
  local object = setmetatable({ number = 0 }, subscription_methods)
  local number, problem = native.subscribe(generation.number, channel, f)
  if not number then return nil, problem end
  object.number = number
  return object
end

prelude.subscribe = subscribe
