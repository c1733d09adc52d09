-- Generations as Lua knows them: loading one, handing state over to the next, and forgetting one.
local prelude, native = ...

local format, sub = string.format, string.sub
local unpack, type, pairs, ipairs, load, pcall = table.unpack, type, pairs, ipairs, load, pcall
local describe, enter_handlers, enter_listener = prelude.describe, prelude.enter_handlers, prelude.enter_listener
local is_handlers, make_environment = prelude.is_handlers, prelude.make_environment
local outgoing_handlers = prelude.outgoing_handlers

local generations = {}

-- A table may stand under several names: the next generation may have any of them.
local function enter_named(generation, name, handlers)
  generation.names[handlers] = generation.names[handlers] or name
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
  generation.arguments[0] = sub(place, 2)
  generation.environment = make_environment(generation)
  local chunk, message = load(source, place, "t", generation.environment)
  if not chunk then return message end
  local handlers = chunk(unpack(generation.arguments))
  generation.loading = false
  local last = format("%s:%d", sub(place, 2), last_line)
  if type(handlers) ~= "table" then
    return format("%s: the script must return its table of handlers, not %s",
      last, type(handlers) == "nil" and "nothing" or describe(handlers))
  end
  generation.handlers = handlers
  local entered, problem = pcall(enter_all, generation, last, handlers)
  if not entered then return problem end
end

-- The generation whose on_save runs, or was the last to run and failed.
local saving

-- The state that the old generation saves and the new one takes over.
local function hand_over(old_number, new_number)
  local old, new = generations[old_number], generations[new_number]
  local saved
  saving = old_number
  if old and old.handlers.on_save then saved = old.handlers.on_save() end
  saving = nil
  native.restores(new_number)
  if new.handlers.on_restore then new.handlers.on_restore(saved, old and old.handlers.version) end
end

-- What is to be said of a failure of hand_over beside its message: on_save is the old code's, whose lines the file need not have
-- any more.
local function hand_over_note()
  if not saving then return end
  return format(
    "this is on_save of generation %d, the code that runs now; it stays until its on_save succeeds, or the server is started anew",
    saving)
end

local function forget(number)
  generations[number] = nil
end

prelude.generations = generations
prelude.load_generation = load_generation
prelude.hand_over = hand_over
prelude.hand_over_note = hand_over_note
prelude.forget = forget
