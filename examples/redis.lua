-- A cache that speaks the Redis protocol (RESP2), with its data in one dictionary that all workers share.
--
--   scripts/run examples/redis.lua
--   redis-cli -p 6380
--   redis-benchmark -p 6380 -t ping,set,get,incr,lpush,rpush,lpop,rpop,mset -P 16 -q
--
-- 1. Each client is on one of the workers, and all see the same keys: try SET a 1 in one redis-cli and INCR a in another.
-- 2. SET b x EX 5, then TTL b: the dictionary expires keys to the millisecond.
-- 3. SUBSCRIBE news in one client, PUBLISH news hello in another: a channel is a room, and a broadcast reaches it on every worker.
-- 4. Change a reply below, save, and type `scripts/run reload`: clients, keys and half-received commands stay.
--
-- How it works. The codec is "raw": a read may hold hundreds of pipelined commands, or a piece of one. on_message cuts it into commands,
-- runs each by the table `commands`, and writes all replies at once; what is incomplete waits in conn.ctx. A command that
-- reads, thinks and writes is safe against other workers by data:cas(key, old, new), which changes nothing when the value is
-- not the old one any more: then it begins again. Each command is atomic but MSET, MGET, DEL and pushes of several values, which are
-- so for each key or value. Values that look like integers are kept as integers, so INCR is one call.

local moonport = require "moonport"

local data = moonport.shared("redis", { max_memory = 256 * 1024 * 1024 })

moonport.listen {
  address = "127.0.0.1:6380",
  -- A client that sends commands faster than it reads replies is not read from until it has caught up.
  output_limit = { hard = 256 * 1024 * 1024, policy = "pause" },
}

-- What one command may have, as in Redis but for the length of a word, which there is 512 MB.
local WORDS_MAX = 1024 * 1024
local WORD_BYTES_MAX = 16 * 1024 * 1024
local COMMAND_BYTES_MAX = 64 * 1024 * 1024
local LINE_BYTES_MAX = 64 * 1024
-- Replies to pipelined commands leave together, until they are as much as this.
local REPLIES_BYTES_MAX = 64 * 1024

local byte, find, format, match, sub, upper = string.byte, string.find, string.format, string.match, string.sub, string.upper
local concat, tointeger = table.concat, math.tointeger

-- Replies -------------------------------------------------------------------------------------------------------------

local OK, PONG, NULL, NO_ITEMS = "+OK\r\n", "+PONG\r\n", "$-1\r\n", "*0\r\n"
local WRONG_TYPE = "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n"
local NOT_INTEGER = "-ERR value is not an integer or out of range\r\n"
local SYNTAX_ERROR = "-ERR syntax error\r\n"

local function integer(number)
  return ":" .. number .. "\r\n"
end

local function bulk(text)
  return "$" .. #text .. "\r\n" .. text .. "\r\n"
end

-- A value of the dictionary; nil is Redis's null.
local function value_reply(value)
  return value == nil and NULL or bulk(tostring(value))
end

-- Of items that are replies themselves.
local function array(items)
  return "*" .. #items .. "\r\n" .. concat(items)
end

-- Why the dictionary refused, in Redis's words.
local refusals = {
  ["value is a list"] = WRONG_TYPE,
  ["value not a list"] = WRONG_TYPE,
  ["no memory"] = "-OOM command not allowed when used memory > 'maxmemory'.\r\n",
  ["key too long"] = "-ERR key is longer than 65535 bytes\r\n",
}

-- Values --------------------------------------------------------------------------------------------------------------

-- A word as an integer, or nil: nothing but digits, no leading zero, 64 bits.
local function to_integer(word)
  local number = find(word, "^%-?%d+$") and tointeger(tonumber(word))
  return number and tostring(number) == word and number or nil
end

-- What is stored for a word: an integer when it is written as one, as Redis does it inside.
local function compact(word)
  local first = byte(word)
  if first and first <= 57 and #word <= 20 then return to_integer(word) or word end
  return word
end

-- Stores what `change` makes of the old value; it is called again when another worker was faster, and returns nil to leave all as
-- it is. Returns true, the old and the new value; or false and the reply that says why not. `ttl` nil leaves the time to live.
local function update(key, ttl, change)
  while true do
    local old, problem = data:get(key)
    if problem then return false, refusals[problem] end
    local new = change(old)
    if new == nil then return true, old end
    local done, why = data:cas(key, old, new, ttl)
    if done then return true, old, new end
    if refusals[why] then return false, refusals[why] end
  end
end

-- Commands on values --------------------------------------------------------------------------------------------------

-- By name: the number of words, the command's own included, negative for "at least"; and the function. It gets the words and
-- the connection, and returns the reply.
local commands = {}

local function command(name, words, run)
  commands[name] = { words = words, run = run }
end

command("GET", 2, function(words)
  local value, problem = data:get(words[2])
  return refusals[problem] or value_reply(value)
end)

-- The options of SET behind key and value: a table, or nil and a reply.
local function set_options(words)
  local options = {}
  local index = 4
  while index <= #words do
    local name = upper(words[index])
    if (name == "EX" or name == "PX") and not options.ttl and not options.KEEPTTL then
      index = index + 1
      local time = words[index] and to_integer(words[index])
      if not time then return nil, words[index] and NOT_INTEGER or SYNTAX_ERROR end
      if time <= 0 then return nil, "-ERR invalid expire time in 'set' command\r\n" end
      options.ttl = name == "EX" and time or time / 1000
    elseif name == "GET" or name == "KEEPTTL" and not options.ttl or name == "NX" and not options.XX
      or name == "XX" and not options.NX then
      options[name] = true
    else
      return nil, SYNTAX_ERROR
    end
    index = index + 1
  end
  return options
end

command("SET", -3, function(words)
  local key, value = words[2], compact(words[3])
  if #words == 3 then
    local done, problem = data:set(key, value)
    return done and OK or refusals[problem]
  end
  local options, wrong = set_options(words)
  if not options then return wrong end
  local ttl = options.ttl or 0
  if options.GET or options.KEEPTTL then
    if options.KEEPTTL then ttl = nil end
    local fine, old, new = update(key, ttl, function(old)
      if old ~= nil and options.NX or old == nil and options.XX then return nil end
      return value
    end)
    if not fine then return old end
    if options.GET then return value_reply(old) end
    return new and OK or NULL
  end
  local store = options.NX and data.add or options.XX and data.replace or data.set
  local done, problem = store(data, key, value, ttl)
  return done and OK or refusals[problem] or NULL
end)

command("MGET", -2, function(words)
  local values = {}
  for index = 2, #words do values[index - 1] = value_reply((data:get(words[index]))) end
  return array(values)
end)

command("MSET", -3, function(words)
  if #words % 2 == 0 then return "-ERR wrong number of arguments for 'mset' command\r\n" end
  for index = 2, #words, 2 do
    local done, problem = data:set(words[index], compact(words[index + 1]))
    if not done then return refusals[problem] end
  end
  return OK
end)

command("APPEND", 3, function(words)
  local fine, reply, new = update(words[2], nil, function(old)
    return compact((old or "") .. words[3])
  end)
  return fine and integer(#tostring(new)) or reply
end)

command("STRLEN", 2, function(words)
  local value, problem = data:get(words[2])
  return refusals[problem] or integer(value == nil and 0 or #tostring(value))
end)

-- Adds to the integer at a key.
local function add(key, amount)
  while true do
    local sum, problem = data:incr(key, amount, 0)
    if sum then return integer(sum) end
    if problem == "overflow" then return "-ERR increment or decrement would overflow\r\n" end
    if problem ~= "not a number" then return refusals[problem] end
    local text, is_list = data:get(key)
    if is_list then return WRONG_TYPE end
    -- Nothing there: somebody else has removed it between the two looks.
    if text then return NOT_INTEGER end
  end
end

command("INCR", 2, function(words) return add(words[2], 1) end)
command("DECR", 2, function(words) return add(words[2], -1) end)

command("INCRBY", 3, function(words)
  local amount = to_integer(words[3])
  return amount and add(words[2], amount) or NOT_INTEGER
end)

command("DECRBY", 3, function(words)
  local amount = to_integer(words[3])
  if amount == math.mininteger then return "-ERR decrement would overflow\r\n" end
  return amount and add(words[2], -amount) or NOT_INTEGER
end)

-- Commands on keys ----------------------------------------------------------------------------------------------------

command("DEL", -2, function(words)
  local removed = 0
  for index = 2, #words do
    local _, _, existed = data:delete(words[index])
    if existed then removed = removed + 1 end
  end
  return integer(removed)
end)

command("EXISTS", -2, function(words)
  local found = 0
  for index = 2, #words do
    if data:ttl(words[index]) then found = found + 1 end
  end
  return integer(found)
end)

command("TYPE", 2, function(words)
  local value, is_list = data:get(words[2])
  return is_list and "+list\r\n" or value == nil and "+none\r\n" or "+string\r\n"
end)

local function expire(key, word, unit)
  local time = to_integer(word)
  if not time then return NOT_INTEGER end
  if time > 0 then return integer(data:expire(key, time * unit) and 1 or 0) end
  local _, _, existed = data:delete(key)
  return integer(existed and 1 or 0)
end

command("EXPIRE", 3, function(words) return expire(words[2], words[3], 1) end)
command("PEXPIRE", 3, function(words) return expire(words[2], words[3], 0.001) end)

local function time_to_live(key, unit)
  local left = data:ttl(key)
  if not left then return integer(-2) end
  return integer(left == 0 and -1 or math.floor(left / unit + 0.5))
end

command("TTL", 2, function(words) return time_to_live(words[2], 1) end)
command("PTTL", 2, function(words) return time_to_live(words[2], 0.001) end)

command("PERSIST", 2, function(words)
  local left = data:ttl(words[2])
  return integer(left and left > 0 and data:expire(words[2], 0) and 1 or 0)
end)

-- A glob as a Lua pattern: `*`, `?`, `[a-c]`, `[^a]`, and a backslash before what is meant as it is.
local function pattern_of(glob)
  local parts, index = { "^" }, 1
  while index <= #glob do
    local letter = sub(glob, index, index)
    local set = letter == "[" and match(glob, "^%[%^?[^%]]+%]", index)
    if letter == "*" then
      parts[#parts + 1] = ".*"
    elseif letter == "?" then
      parts[#parts + 1] = "."
    elseif set then
      parts[#parts + 1] = (set:gsub("%%", "%%%%"))
      index = index + #set - 1
    else
      if letter == "\\" and index < #glob then
        index = index + 1
        letter = sub(glob, index, index)
      end
      parts[#parts + 1] = (letter:gsub("%W", "%%%0"))
    end
    index = index + 1
  end
  return concat(parts) .. "$"
end

command("KEYS", 2, function(words)
  local pattern, found = pattern_of(words[2]), {}
  for _, key in ipairs(data:keys(0)) do
    if find(key, pattern) then found[#found + 1] = bulk(key) end
  end
  return array(found)
end)

command("DBSIZE", 1, function() return integer(data:count()) end)

local function flush()
  data:flush()
  return OK
end

command("FLUSHALL", -1, flush)
command("FLUSHDB", -1, flush)

-- Commands on lists ---------------------------------------------------------------------------------------------------

local function push(method)
  return function(words)
    local count, problem
    for index = 3, #words do
      count, problem = method(data, words[2], words[index])
      if not count then return refusals[problem] end
    end
    return integer(count)
  end
end

command("LPUSH", -3, push(data.lpush))
command("RPUSH", -3, push(data.rpush))

local function pop(method)
  return function(words)
    local key = words[2]
    if #words == 2 then
      local value, problem = method(data, key)
      return refusals[problem] or value_reply(value)
    end
    local most = to_integer(words[3])
    if #words > 3 then return SYNTAX_ERROR end
    if not most or most < 0 then return "-ERR value is out of range, must be positive\r\n" end
    local values = {}
    while #values < most do
      local value, problem = method(data, key)
      if problem then return refusals[problem] end
      if value == nil then break end
      values[#values + 1] = bulk(value)
    end
    return #values > 0 and array(values) or "*-1\r\n"
  end
end

command("LPOP", -2, pop(data.lpop))
command("RPOP", -2, pop(data.rpop))

command("LLEN", 2, function(words)
  local count, problem = data:llen(words[2])
  return refusals[problem] or integer(count)
end)

command("LRANGE", 4, function(words)
  local first, last = to_integer(words[3]), to_integer(words[4])
  if not first or not last then return NOT_INTEGER end
  -- Redis counts from 0, the dictionary, as Lua does, from 1; both count from the end by negative numbers.
  local values, problem = data:lrange(words[2], first < 0 and first or first + 1, last < 0 and last or last + 1)
  if problem then return refusals[problem] end
  for index, value in ipairs(values) do values[index] = bulk(value) end
  return array(values)
end)

-- Channels ------------------------------------------------------------------------------------------------------------

-- Rooms have no other use here, so a channel's room has its name.
command("SUBSCRIBE", -2, function(words, conn)
  local replies = {}
  for index = 2, #words do
    conn:join(words[index])
    replies[index - 1] = array { bulk("subscribe"), bulk(words[index]), integer(#conn:rooms()) }
  end
  conn.ctx.listens = true
  return concat(replies)
end)

command("UNSUBSCRIBE", -1, function(words, conn)
  local names = #words > 1 and table.move(words, 2, #words, 1, {}) or conn:rooms()
  local replies = {}
  for index, name in ipairs(names) do
    conn:leave(name)
    replies[index] = array { bulk("unsubscribe"), bulk(name), integer(#conn:rooms()) }
  end
  conn.ctx.listens = #conn:rooms() > 0
  if #names == 0 then return array { bulk("unsubscribe"), NULL, integer(0) } end
  return concat(replies)
end)

command("PUBLISH", 3, function(words)
  moonport.broadcast(array { bulk("message"), bulk(words[2]), bulk(words[3]) }, { room = words[2] })
  return integer(moonport.count(words[2]))
end)

-- All that a connection with subscriptions may ask for: anything else would mix replies and messages.
local allowed_while_listening = { SUBSCRIBE = true, UNSUBSCRIBE = true, PING = true, QUIT = true }

-- What clients ask about the server -----------------------------------------------------------------------------------

command("PING", -1, function(words, conn)
  if #words > 2 then return "-ERR wrong number of arguments for 'ping' command\r\n" end
  if conn.ctx.listens then return array { bulk("pong"), bulk(words[2] or "") } end
  return words[2] and bulk(words[2]) or PONG
end)

command("ECHO", 2, function(words) return bulk(words[2]) end)

command("QUIT", -1, function(_, conn)
  conn.ctx.quits = true
  return OK
end)

command("SELECT", 2, function(words)
  return words[2] == "0" and OK or "-ERR DB index is out of range\r\n"
end)

command("HELLO", -1, function() return "-NOPROTO this server speaks RESP2 only\r\n" end)
command("COMMAND", -1, function() return NO_ITEMS end)
command("CLIENT", -2, function(words) return upper(words[2]) == "GETNAME" and NULL or OK end)

command("CONFIG", -2, function(words)
  if upper(words[2]) ~= "GET" or #words < 3 then return "-ERR only CONFIG GET is known\r\n" end
  local known = { save = "", appendonly = "no", maxmemory = tostring(data:capacity()), databases = "1" }
  local found = {}
  for index = 3, #words do
    local value = known[words[index]:lower()]
    if value then found[#found + 1], found[#found + 2] = bulk(words[index]), bulk(value) end
  end
  return array(found)
end)

command("INFO", -1, function()
  return bulk(concat({
    "# Server", "redis_mode:standalone", "worker:" .. moonport.worker.id, "workers:" .. moonport.worker.count,
    "generation:" .. moonport.generation, "# Clients", "connected_clients:" .. moonport.count(),
    "# Memory", "used_memory:" .. data:capacity() - data:free_space(), "maxmemory:" .. data:capacity(),
    "# Keyspace", "db0:keys=" .. data:count(), "",
  }, "\r\n"))
end)

-- Runs a command and returns its reply.
local function run(words, conn)
  local name = upper(words[1])
  local known = commands[name]
  if not known then
    return format("-ERR unknown command '%s'\r\n", sub(words[1], 1, 128):gsub("%c", " "))
  end
  if known.words >= 0 and #words ~= known.words or #words < -known.words then
    return format("-ERR wrong number of arguments for '%s' command\r\n", name:lower())
  end
  if conn.ctx.listens and not allowed_while_listening[name] then
    return format(
      "-ERR Can't execute '%s': only SUBSCRIBE / UNSUBSCRIBE / PING / QUIT are allowed in this context\r\n", name:lower())
  end
  return known.run(words, conn)
end

-- The protocol --------------------------------------------------------------------------------------------------------

-- What is behind the bytes at hand: nothing yet, or nothing that could ever be right.
local function incomplete_line(bytes, position, problem)
  if find(bytes, "\n", position, true) or #bytes - position > LINE_BYTES_MAX then return nil, problem end
end

-- A command typed by a person: words in one line.
local function parse_line(bytes, position)
  local line, next_position = match(bytes, "^([^\n]*)\n()", position)
  if not line then return incomplete_line(bytes, position, "too big inline request") end
  local words = {}
  for word in line:gmatch("[^%s]+") do words[#words + 1] = word end
  return words, next_position
end

-- The command at `position`: its words and the position behind it. Or nil and what is wrong; or nothing while it is
-- incomplete, with the position that has to be there at least as third value if it is known.
local function parse(bytes, position)
  if byte(bytes, position) ~= 42 then return parse_line(bytes, position) end
  local count, at = match(bytes, "^%*(%-?%d+)\r\n()", position)
  if not count then return incomplete_line(bytes, position, "invalid multibulk length") end
  count = tonumber(count)
  if count > WORDS_MAX then return nil, "invalid multibulk length" end
  local words = {}
  for index = 1, count do
    local length, start = match(bytes, "^%$(%d+)\r\n()", at)
    if not length then
      if at <= #bytes and byte(bytes, at) ~= 36 then return nil, format("expected '$', got '%s'", sub(bytes, at, at)) end
      return incomplete_line(bytes, at, "invalid bulk length")
    end
    length = tonumber(length)
    if length > WORD_BYTES_MAX then return nil, "invalid bulk length" end
    at = start + length + 2
    if at > #bytes + 1 then return nil, nil, at - 1 end
    words[index] = sub(bytes, start, at - 3)
  end
  return words, at
end

local redis = { version = "1" }

-- Keeps a command that is not complete. Its pieces are put together once it can be, so that a long value costs nothing twice.
local function keep(ctx, bytes, position, needed)
  ctx.pieces = { sub(bytes, position) }
  ctx.held = #bytes - position + 1
  ctx.needed = needed and needed - position + 1 or 0
end

-- All that has come of commands which are not complete, or nothing while that cannot be enough.
local function gather(ctx, bytes)
  if not ctx.pieces then return bytes end
  ctx.pieces[#ctx.pieces + 1] = bytes
  ctx.held = ctx.held + #bytes
  if ctx.held < ctx.needed then return nil end
  bytes = concat(ctx.pieces)
  ctx.pieces = nil
  return bytes
end

local function send(conn, replies)
  if #replies > 0 and not conn:write(concat(replies)) then conn:abort() end
  return {}, 0
end

function redis.on_message(conn, bytes)
  local ctx = conn.ctx
  bytes = gather(ctx, bytes)
  if not bytes then return end
  local replies, size, position = {}, 0, 1
  while position <= #bytes do
    local words, next_position, needed = parse(bytes, position)
    if not words then
      local problem = next_position or #bytes - position > COMMAND_BYTES_MAX and "too big request"
      if not problem then
        keep(ctx, bytes, position, needed)
        break
      end
      replies[#replies + 1] = "-ERR Protocol error: " .. problem .. "\r\n"
      ctx.quits = true
    elseif #words > 0 then
      local reply = run(words, conn)
      replies[#replies + 1] = reply
      size = size + #reply
    end
    if ctx.quits then
      send(conn, replies)
      return conn:close()
    end
    -- Long replies do not pile up here.
    if size > REPLIES_BYTES_MAX then replies, size = send(conn, replies) end
    position = next_position
  end
  send(conn, replies)
end

return redis
