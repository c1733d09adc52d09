-- moonport.listen: its options, checked while the script loads and handed over once it has loaded.
local prelude, native = ...

local format = string.format
local getinfo, error, type, pairs = debug.getinfo, error, type, pairs
local check_options, codec_number, describe = prelude.check_options, prelude.codec_number, prelude.describe

local listen_options = {
  address = "string", codec = "codec", handler = "table", max_connections = "count", max_connections_per_ip = "count",
  idle_timeout = "seconds", message_timeout = "seconds", output_limit = "table", backlog = "count",
  connection_rate = "rate", message_rate = "rate",
}

local output_options = { hard = "count", soft = "count", soft_seconds = "seconds", policy = "string" }

local function check_output_limit(limit, level)
  check_options("moonport.listen: output_limit", limit, output_options, level + 1)
  local policy = limit.policy or "close"
  if policy ~= "close" and policy ~= "drop_newest" and policy ~= "drop_oldest" and policy ~= "pause" then
    error(format('moonport.listen: output_limit.policy must be "close", "drop_newest", "drop_oldest" or "pause", not %s',
      describe(policy)), level + 1)
  end
  local hard, soft = limit.hard or 8388608, limit.soft
  if soft and soft > hard then
    error(format("moonport.listen: output_limit.soft (%d) must not exceed hard (%d)", soft, hard), level + 1)
  end
end

local rate_options = {
  connection_rate = { per_second = "rate", burst = "count" },
  message_rate = { per_second = "rate", burst = "count", policy = "string" },
}

-- Checks one of the rates; returns its figure per second and its burst, 0 for what is not said, and its policy.
local function rate(options, name, level)
  local value = options[name] or 0
  if type(value) == "number" then return value, 0, "pause" end
  local where = "moonport.listen: " .. name
  check_options(where, value, rate_options[name], level + 1)
  if type(value.per_second) ~= "number" then error(where .. ": option 'per_second' is missing", level + 1) end
  local policy = value.policy or "pause"
  if policy ~= "pause" and policy ~= "close" then
    error(format('%s.policy must be "pause" or "close", not %s', where, describe(policy)), level + 1)
  end
  return value.per_second, value.burst or 0, policy
end

local function listen(generation, options)
  if not generation.loading then error("moonport.listen: only while the script loads", 3) end
  if type(options) ~= "table" then
    error("bad argument #1 to 'listen' (table expected, got " .. type(options) .. ")", 3)
  end
  check_options("moonport.listen", options, listen_options, 3)
  if not options.address then error("moonport.listen: option 'address' is missing", 3) end
  local problem = native.check_address(options.address)
  if problem then error("moonport.listen: option 'address': " .. problem, 3) end
  if options.output_limit then check_output_limit(options.output_limit, 3) end
  rate(options, "connection_rate", 3)
  rate(options, "message_rate", 3)
  local copy = {}
  for name, value in pairs(options) do copy[name] = value end
  local caller = getinfo(3, "Sl")
  copy.place = format("%s:%d", caller.short_src, caller.currentline)
  copy.codec_number = codec_number("moonport.listen", options.codec or "raw", true, 3)
  local listeners = generation.listeners
  listeners[#listeners + 1] = copy
end

local function enter_listener(options, set)
  local limit = options.output_limit or {}
  local hard = limit.hard or 8388608
  local connection_rate, connection_burst = rate(options, "connection_rate", 3)
  local message_rate, message_burst, rate_policy = rate(options, "message_rate", 3)
  native.listener(
    options.place, options.address, options.codec_number, set, options.max_connections or 0, options.max_connections_per_ip or 0,
    options.idle_timeout or 0, options.message_timeout or 0, hard, limit.soft or math.min(1048576, hard),
    limit.soft_seconds or 60, limit.policy or "close", options.backlog or 4096,
    connection_rate, connection_burst, message_rate, message_burst, rate_policy)
end

prelude.enter_listener = enter_listener
prelude.listen = listen
