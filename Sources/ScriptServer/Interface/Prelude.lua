-- The part of the Lua interface that is written in Lua: environments of generations, `require`, options and their errors.
-- Nothing here is on the way of a message. `native` holds the functions that Swift offers, `connection` the methods of connections.
local native, connection = ...

local error, type, pairs, ipairs, select, tostring, load, rawget = error, type, pairs, ipairs, select, tostring, load, rawget
local setmetatable, getmetatable, pcall, xpcall, loadfile = setmetatable, getmetatable, pcall, xpcall, loadfile
local math_type = math.type
local concat, sort, pack, unpack = table.concat, table.sort, table.pack, table.unpack
local package, io_open, getinfo, traceback = package, io.open, debug.getinfo, debug.traceback
local running = coroutine.running

local generations = {}

-- Options -------------------------------------------------------------------------------------------------------------

local function describe(value)
  if type(value) == "string" then return ("%q"):format(value) end
  if type(value) == "number" or type(value) == "boolean" then return tostring(value) end
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
      error(("%s: unknown option %s; it knows %s"):format(where, describe(name), keys(known)), level + 1)
    end
    local expected = kinds[kind](value)
    if expected then
      error(("%s: option '%s' must be %s, not %s"):format(where, name, expected, describe(value)), level + 1)
    end
  end
end

-- Codecs --------------------------------------------------------------------------------------------------------------

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

-- The number of a codec on this worker, entered if it is new. One with functions belongs to the generation that loads, as
-- kind "scripted", or to the connection that is to use it, as kind "own".
local function codec_number(where, spec, kind, level)
  if type(spec) == "string" then spec = { type = spec } end
  local name = spec.type
  if name == nil and (spec.decode or spec.encode) then
    check_options(where .. ": codec", spec, scripted_options, level + 1)
    if not spec.decode or not spec.encode then
      error(where .. ": a codec of your own needs both decode and encode", level + 1)
    end
  elseif not codec_options[name] then
    error(("%s: unknown codec %s; there are %s, and { decode = f, encode = g }"):format(
      where, describe(name), keys(codec_options)), level + 1)
  else
    local options = {}
    for key, value in pairs(spec) do if key ~= "type" then options[key] = value end end
    check_options(('%s: codec "%s"'):format(where, name), options, codec_options[name], level + 1)
  end
  local number, reason = native.codec(
    name or kind, spec.max_length, spec.delimiter, spec.length, spec.size, spec.endian, spec.offset,
    spec.adjustment, spec.strip, spec.decode, spec.encode)
  if not number then error(where .. ": " .. reason, level + 1) end
  return number
end

local function check_connection(conn, method)
  if not native.is_connection(conn) then
    error(("bad argument #1 to '%s' (connection expected, got %s)"):format(method, conn == nil and "no value" or type(conn)), 3)
  end
end

function connection.set_codec(conn, spec)
  check_connection(conn, "set_codec")
  if kinds.codec(spec) then
    error("bad argument #1 to 'set_codec' (a codec's name or table expected, got " .. type(spec) .. ")", 2)
  end
  return native.use_codec(conn, codec_number("conn:set_codec", spec, "own", 2))
end

-- Connections ---------------------------------------------------------------------------------------------------------

local receive = connection.receive

local function next_message(conn)
  return (receive(conn))
end

function connection.messages(conn)
  check_connection(conn, "messages")
  return next_message, conn
end

-- Listeners -----------------------------------------------------------------------------------------------------------

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
    error(('moonport.listen: output_limit.policy must be "close", "drop_newest", "drop_oldest" or "pause", not %s')
      :format(describe(policy)), level + 1)
  end
  local hard, soft = limit.hard or 8388608, limit.soft
  if soft and soft > hard then
    error(("moonport.listen: output_limit.soft (%d) must not exceed hard (%d)"):format(soft, hard), level + 1)
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
    error(('%s.policy must be "pause" or "close", not %s'):format(where, describe(policy)), level + 1)
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
  copy.place = ("%s:%d"):format(caller.short_src, caller.currentline)
  copy.codec_number = codec_number("moonport.listen", options.codec or "raw", "scripted", 3)
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

-- Handlers ------------------------------------------------------------------------------------------------------------

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
    if type(name) == "string" and name:find("^on_") then
      if type(value) ~= "function" then
        error(("%s: handler '%s' must be a function, not %s"):format(place, name, describe(value)), 0)
      end
      if not known_handlers[name] then
        local at = getinfo(value, "S")
        local line = at.what == "C" and place or ("%s:%d"):format(at.short_src, at.linedefined)
        error(("%s: unknown handler '%s'; the handlers are %s"):format(line, name, concat(handler_names, ", ")), 0)
      end
    end
  end
  return native.handlers(
    handlers.on_open, handlers.on_message, handlers.on_drain, handlers.on_close, handlers.on_error,
    handlers.on_start, handlers.on_console, handlers.on_stop)
end

-- Modules -------------------------------------------------------------------------------------------------------------

local function read_file(path)
  local file, problem = io_open(path, "rb")
  if not file then return nil, problem end
  local text = file:read("a")
  file:close()
  return text
end

-- Finds a module outside the script's folder, by the usual paths: Lua text gets the generation's environment, a C library is
-- loaded as the standard `require` does it.
local function find_elsewhere(generation, name)
  if native.is_strict() then return nil, "\n\tno other place: the sandbox is strict" end
  local path, tried = package.searchpath(name, generation.environment.package.path)
  if path then
    local text, problem = read_file(path)
    if not text then error(problem, 0) end
    local chunk, message = load(text:gsub("^#[^\n]*", "", 1), "@" .. path, "t", generation.environment)
    if not chunk then error(message, 0) end
    return chunk, path
  end
  tried = "\n\t" .. tried
  package.cpath = generation.environment.package.cpath
  for index = 3, #package.searchers do
    local loader, data = package.searchers[index](name)
    if type(loader) == "function" then return loader, data end
    if type(loader) == "string" then tried = tried .. "\n\t" .. loader end
  end
  return nil, tried
end

local function find_module(generation, name)
  local preloaded = generation.environment.package.preload
  local loader = type(preloaded) == "table" and preloaded[name]
  if type(loader) == "function" then return loader, ":preload:" end
  local source, place = native.module(generation.number, name)
  if source then
    local chunk, message = load(source, place, "t", generation.environment)
    -- The place comes first: an editor looks for it there.
    if not chunk then error(("%s (loading module '%s')"):format(message, name), 0) end
    return chunk, place
  end
  local found, data = find_elsewhere(generation, name)
  if found then return found, data end
  error(("module '%s' not found:%s%s"):format(name, place, data), 3)
end

local function require(generation, name)
  if type(name) ~= "string" then
    error("bad argument #1 to 'require' (string expected, got " .. type(name) .. ")", 2)
  end
  local loaded = generation.loaded
  local value = loaded[name]
  if value ~= nil then return value end
  -- By coroutine, not just by name: a run that is ended by its budget does not come to the clean-up below.
  local thread = running()
  if generation.requiring[name] == thread then error(("module '%s' requires itself"):format(name), 2) end
  local loader, place = find_module(generation, name)
  generation.requiring[name] = thread
  -- Ends with the call however that ends, and leaves an error's traceback alone.
  local _ <close> = setmetatable({}, { __close = function() generation.requiring[name] = nil end })
  value = loader(name, place)
  if value ~= nil then loaded[name] = value end
  if loaded[name] == nil then loaded[name] = true end
  return loaded[name], place
end

-- The `moonport` table ------------------------------------------------------------------------------------------------

local timer_methods = {}
timer_methods.__index = timer_methods
timer_methods.__name = "timer"

function timer_methods:cancel()
  return native.cancel_timer(self.number)
end

local function timer(where, repeats, seconds, f, ...)
  if kinds.seconds(seconds) then
    error(("bad argument #1 to '%s' (a number of seconds, at least 0, expected, got %s)"):format(where, describe(seconds)), 2)
  end
  if type(f) ~= "function" then
    error(("bad argument #2 to '%s' (function expected, got %s)"):format(where, type(f)), 2)
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

-- Channels ------------------------------------------------------------------------------------------------------------

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

-- Outgoing connections -------------------------------------------------------------------------------------------------

local connect_options = { codec = "codec", timeout = "seconds", handler = "table" }

-- Seconds that a connection may take to be made, its name's look-up included.
local connect_seconds = 10

local function check_outgoing_handlers(handlers)
  for name, value in pairs(handlers) do
    if type(name) == "string" and name:find("^on_") then
      if not known_handlers[name] then
        error(("moonport.connect: unknown handler '%s'; the handlers are %s"):format(name, concat(handler_names, ", ")), 3)
      end
      if type(value) ~= "function" then
        error(("moonport.connect: handler '%s' must be a function, not %s"):format(name, describe(value)), 3)
      end
    end
  end
end

local function connect(generation, address, options)
  if type(address) ~= "string" then
    error(("bad argument #1 to 'connect' (string expected, got %s)"):format(address == nil and "no value" or type(address)), 2)
  end
  -- Raises where nothing can wait, before anything is entered for the connection.
  local problem = native.connect(address)
  if problem then error("moonport.connect: " .. problem, 2) end
  if options == nil then options = {} end
  if type(options) ~= "table" then
    error(("bad argument #2 to 'connect' (table expected, got %s)"):format(type(options)), 2)
  end
  check_options("moonport.connect", options, connect_options, 2)
  local handlers = options.handler
  if handlers then check_outgoing_handlers(handlers) end
  local codec = options.codec or "raw"
  local is_own = type(codec) == "table" and codec.type == nil
  local number = codec_number("moonport.connect", codec, "own", 2)
  local seconds = options.timeout or connect_seconds
  if not handlers then return native.begin_connect(address, number, seconds, is_own) end
  return native.begin_connect(address, number, seconds, is_own, generation.names[handlers], outgoing_handlers(handlers))
end

-- Tasks ---------------------------------------------------------------------------------------------------------------

-- What a task left is kept in its object: `results`, or `problem` with its `traceback`. So it lives as long as the object does.
local task_methods = {}
task_methods.__index = task_methods
task_methods.__name = "task"

-- Tracebacks of errors that are on their way out of tasks, by coroutine: the error itself stays as it was raised.
local tracebacks = setmetatable({}, { __mode = "k" })

-- An error with its traceback, which ends where the script's own functions do; to be called by a message handler.
local function describe_problem(problem)
  local text = traceback(tostring(problem), 3)
  local last = text:find("\n\t[C]: in function 'xpcall'\n\tmoonport:", 1, true)
  return last and text:sub(1, last - 1) or text
end

local function note_traceback(problem)
  tracebacks[running()] = describe_problem(problem)
  return problem
end

local function finish_task(task, succeeded, ...)
  local ending = native.task_ending()
  if succeeded and not ending then
    task.results = pack(...)
    return
  end
  local problem = ...
  if not succeeded then
    local thread = running()
    local text = tracebacks[thread] or tostring(problem)
    tracebacks[thread] = nil
    if ending ~= "cancelled" then native.task_failed(text) end
    if not ending then task.traceback = text end
  end
  if problem == nil then problem = "nil" end
  task.problem = ending or problem
end

local function spawn(f, ...)
  if type(f) ~= "function" then error(("bad argument #1 to 'spawn' (function expected, got %s)"):format(type(f)), 2) end
  local arguments = select("#", ...) > 0 and pack(...)
  local task = setmetatable({ number = 0 }, task_methods)
  -- Runs the task; or is told how it ended, when it could not say so itself.
  local number, problem = native.spawn(function(ending)
    if ending then
      task.problem = ending
      return
    end
    local body, values = f, arguments
    f, arguments = nil, nil
    if not values then return finish_task(task, xpcall(body, note_traceback)) end
    return finish_task(task, xpcall(body, note_traceback, unpack(values, 1, values.n)))
  end)
  if not number then return nil, problem end
  task.number = number
  return task
end

local function check_task(task, method)
  if type(task) ~= "table" or getmetatable(task) ~= task_methods then
    error(("bad argument #1 to '%s' (task expected, got %s)"):format(method, task == nil and "no value" or type(task)), 3)
  end
end

function task_methods:wait(timeout)
  check_task(self, "wait")
  if timeout ~= nil and kinds.seconds(timeout) then
    error(("bad argument #1 to 'wait' (a number of seconds, at least 0, expected, got %s)"):format(describe(timeout)), 2)
  end
  if not self.results and self.problem == nil then
    local finished, reason = native["task:wait"](self.number, timeout)
    if not finished then return nil, reason end
  end
  local results = self.results
  if results then return unpack(results, 1, results.n) end
  if self.traceback then return nil, self.problem, self.traceback end
  -- A task that ran out of memory may not even have been able to say so.
  return nil, self.problem == nil and "not enough memory" or self.problem
end

function task_methods:cancel()
  check_task(self, "cancel")
  local cancelled, never_ran = native.cancel_task(self.number)
  if never_ran then self.problem = "cancelled" end
  return cancelled
end

-- Broadcasts ----------------------------------------------------------------------------------------------------------

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
      error(("moonport.broadcast: unknown option %s; it knows except, room"):format(describe(name)), 2)
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
  return names, values, count > 0 and #value == count
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
      error(("bad argument #1 to '%s' (string expected, got %s)"):format(level, type(message)), 2)
    end
    if fields == nil then return native.log(level, message) end
    if type(fields) ~= "table" then
      error(("bad argument #2 to '%s' (table expected, got %s)"):format(level, type(fields)), 2)
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

local shared_options = { max_memory = "count" }
local dictionaries = {}

-- The dictionary of a name: one object for all that ask in this state.
local function shared(generation, name, options)
  local known = dictionaries[name]
  if known and options == nil then return known end
  if type(name) ~= "string" then
    error("bad argument #1 to 'shared' (string expected, got " .. (name == nil and "no value" or type(name)) .. ")", 2)
  end
  if #name == 0 or #name > 255 then error("moonport.shared: a name has 1 to 255 bytes", 2) end
  local max_memory
  if options ~= nil then
    if type(options) ~= "table" then
      error("bad argument #2 to 'shared' (table expected, got " .. type(options) .. ")", 2)
    end
    check_options("moonport.shared", options, shared_options, 2)
    max_memory = options.max_memory
    if max_memory and max_memory < 4096 then
      error(("moonport.shared: option 'max_memory' must be at least 4096 bytes, not %d"):format(max_memory), 2)
    end
  end
  local made, problem = native.shared(name, max_memory, generation.loading)
  if not made then return nil, problem end
  dictionaries[name] = known or made
  return dictionaries[name]
end

local function make_moonport(generation)
  return {
    listen = function(options) listen(generation, options) end,
    broadcast = broadcast,
    send = native.send,
    write = native.write,
    close = native.close,
    count = native.count,
    shared = function(name, options) return shared(generation, name, options) end,
    sleep = native.sleep,
    connect = function(address, options) return connect(generation, address, options) end,
    pipe = native.pipe,
    resolve = native.resolve,
    after = function(...) return timer("after", false, ...) end,
    every = function(...) return timer("every", true, ...) end,
    publish = native.publish,
    subscribe = function(channel, f) return subscribe(generation, channel, f) end,
    spawn = spawn,
    offload = native.offload,
    log = log,
    worker = { id = native.worker_id(), count = native.worker_count() },
    generation = generation.number,
  }
end

-- Environments --------------------------------------------------------------------------------------------------------

-- What both sandboxes have, and the standard one besides. A script gets copies of the libraries, so that what it changes in them ends
-- with its generation; only `string` is everybody's, since the methods of strings are looked up there.
local safe_globals = {
  "assert", "collectgarbage", "error", "getmetatable", "ipairs", "next", "pairs", "pcall", "rawequal", "rawget", "rawlen",
  "rawset", "select", "setmetatable", "tonumber", "tostring", "type", "warn", "xpcall", "_VERSION",
}
local safe_libraries = { "coroutine", "math", "table", "utf8" }
local standard_libraries = { "debug", "io", "os" }
local strict_os = { "time", "date", "clock", "difftime" }

local function print(...)
  local parts = pack(...)
  for index = 1, parts.n do parts[index] = tostring(parts[index]) end
  native.print(concat(parts, "\t"))
end

local function copy(library)
  local result = {}
  for name, value in pairs(library) do result[name] = value end
  return result
end

-- Puts functions that say why they cannot be had in the place of those that would harm the server.
local refusals = {
  os = {
    exit = "would end the server with all its clients; close connections, or stop the server by `moonport stop`",
    setlocale = "would change how all workers read and write numbers",
  },
  debug = {
    sethook = "would take away what ends a handler that runs for too long",
    debug = "would stop the worker until somebody types at its terminal",
    getregistry = "holds what the server itself keeps in this Lua state",
  },
}

local function refuse(libraries)
  for library, functions in pairs(refusals) do
    for name, why in pairs(functions) do
      libraries[library][name] = function() error(("%s.%s %s"):format(library, name, why), 2) end
    end
  end
end

-- The mode for Lua's own `load`: text, whatever the script asks for. Bytecode is not checked and can crash the process.
local function text_mode(mode)
  if mode == nil then return "t" end
  if type(mode) ~= "string" then return mode end
  return mode:find("t", 1, true) and "t" or ""
end

local function add_loading(environment, is_strict)
  environment.load = function(chunk, name, mode, ...)
    if select("#", ...) == 0 then return load(chunk, name, text_mode(mode), environment) end
    if is_strict then error("load: an environment cannot be given in the strict sandbox", 2) end
    return load(chunk, name, text_mode(mode), (...))
  end
  if is_strict then return end
  environment.loadfile = function(path, mode, ...)
    if select("#", ...) == 0 then return loadfile(path, text_mode(mode), environment) end
    return loadfile(path, text_mode(mode), (...))
  end
  environment.dofile = function(path)
    local chunk, message = loadfile(path, "t", environment)
    if not chunk then error(message, 0) end
    return chunk()
  end
end

local function add_libraries(environment, loaded, is_strict)
  for _, name in ipairs(safe_globals) do environment[name] = _G[name] end
  for _, name in ipairs(safe_libraries) do environment[name] = copy(_G[name]) end
  environment.string = _G.string
  if is_strict then
    environment.os = {}
    for _, name in ipairs(strict_os) do environment.os[name] = os[name] end
  else
    for _, name in ipairs(standard_libraries) do environment[name] = copy(_G[name]) end
    refuse(environment)
  end
  for name, value in pairs(environment) do
    if type(value) == "table" then loaded[name] = value end
  end
end

local function make_package(loaded, is_strict)
  local own = { loaded = loaded, preload = {}, config = package.config }
  if is_strict then return own end
  own.path, own.cpath, own.searchpath, own.loadlib = package.path, package.cpath, package.searchpath, package.loadlib
  return own
end

local function make_environment(generation)
  local environment, loaded, is_strict = {}, generation.loaded, native.is_strict()
  add_libraries(environment, loaded, is_strict)
  add_loading(environment, is_strict)
  environment.print, environment.arg = print, generation.arguments
  environment._G, loaded._G = environment, environment
  loaded.moonport = make_moonport(generation)
  environment.package = make_package(loaded, is_strict)
  loaded.package = environment.package
  environment.require = function(name) return require(generation, name) end
  return environment
end

-- Generations ---------------------------------------------------------------------------------------------------------

local function enter_named(generation, name, handlers)
  if generation.names[handlers] then return end
  generation.names[handlers] = name
  native.named_handlers(name, outgoing_handlers(handlers))
end

-- Hands the handlers and listeners of a loaded script over.
local function enter_all(generation, place, handlers)
  local sets = { [handlers] = enter_handlers(place, handlers) }
  for _, options in ipairs(generation.listeners) do
    local own = options.handler or handlers
    if not sets[own] then sets[own] = enter_handlers(options.place, own) end
    enter_listener(options, sets[own])
  end
  -- Outgoing connections with one of these tables go on with the next generation's table of the same name.
  for name, value in pairs(handlers) do
    if type(name) == "string" and is_handlers(value) then enter_named(generation, name, value) end
  end
  enter_named(generation, "", handlers)
end

-- Loads the generation's script. What it asked for is told to Swift: listeners, handlers. What is wrong with the script as such is
-- returned, since a traceback would only show this file; what it raises itself is raised on.
local function load_generation(number)
  local source, place, last_line = native.main(number)
  local generation = {
    number = number, loaded = {}, requiring = {}, listeners = {}, names = {}, loading = true, arguments = native.arguments(),
  }
  generations[number] = generation
  generation.arguments[0] = place:sub(2)
  generation.environment = make_environment(generation)
  local chunk, message = load(source, place, "t", generation.environment)
  if not chunk then return message end
  local handlers = chunk(unpack(generation.arguments))
  generation.loading = false
  local last = ("%s:%d"):format(place:sub(2), last_line)
  if type(handlers) ~= "table" then
    return ("%s: the script must return its table of handlers, not %s"):format(
      last, type(handlers) == "nil" and "nothing" or describe(handlers))
  end
  generation.handlers = handlers
  local entered, problem = pcall(enter_all, generation, last, handlers)
  if not entered then return problem end
end

-- The state that the old generation saves and the new one takes over.
local function hand_over(old_number, new_number)
  local old, new = generations[old_number], generations[new_number]
  local saved
  if old and old.handlers.on_save then saved = old.handlers.on_save() end
  if new.handlers.on_restore then new.handlers.on_restore(saved, old and old.handlers.version) end
end

-- Offloaded functions -------------------------------------------------------------------------------------------------

-- What needs no worker.
local everywhere = { log = true, generation = true, shared = true }

-- `moonport` as an offloaded function finds it.
local function moonport_without_worker(generation)
  local moonport = make_moonport(generation)
  for name, value in pairs(moonport) do
    if type(value) == "function" and not everywhere[name] then
      moonport[name] = function()
        error(("moonport.%s cannot be called in an offloaded function, which runs on no worker"):format(name), 2)
      end
    end
  end
  moonport.worker = {}
  return moonport
end

-- The one generation of a background thread's state, made for its first call.
local function offloading_generation(number)
  if generations[number] then return generations[number] end
  local _, place = native.main(number)
  local generation = {
    number = number, loaded = {}, requiring = {}, listeners = {}, loading = false, arguments = native.arguments(),
  }
  generation.arguments[0] = place:sub(2)
  generation.environment = make_environment(generation)
  generation.loaded.moonport = moonport_without_worker(generation)
  generations[number] = generation
  return generation
end

-- Without the places and lines that are of this file.
local function note_problem(problem)
  local text = describe_problem(problem):gsub("^moonport:%d+: ", ""):gsub("\n\tmoonport:%d+:[^\n]*", "")
  return (text:gsub("\n\t%(%.%.%.tail calls%.%.%.%)$", ""))
end

local function call_module(generation, name, ...)
  local f = generation.environment.require(name)
  if type(f) ~= "function" then
    error(("module '%s' must return a function to be offloaded, not %s"):format(name, describe(f)), 0)
  end
  return f(...)
end

local function finish_offloaded(name, succeeded, ...)
  if not succeeded then return (...) end
  local packed, problem = pcall(native.offload_result, ...)
  if not packed then return ("module '%s': %s"):format(name, problem) end
end

-- Makes one call; what went wrong, with its traceback, or nothing.
local function offload(number, name, ...)
  local generation = offloading_generation(number)
  return finish_offloaded(name, xpcall(call_module, note_problem, generation, name, ...))
end

local function forget(number)
  generations[number] = nil
end

local function decode(f, bytes, position)
  local message, next_position = f(bytes, position)
  if message == nil and next_position == nil then return nil end
  if message == nil then error("decode must return a message and the next position, or nothing", 0) end
  if math_type(next_position) ~= "integer" or next_position <= position or next_position > #bytes + 1 then
    error(("decode returned the position %s; it must be an integer from %d to %d"):format(
      describe(next_position), position + 1, #bytes + 1), 0)
  end
  return next_position, message
end

local function encode(g, message)
  local bytes = g(message)
  if type(bytes) ~= "string" then error("encode must return a string, not " .. describe(bytes), 0) end
  return bytes
end

return {
  load = load_generation, hand_over = hand_over, forget = forget, decode = decode, encode = encode, offload = offload,
}
