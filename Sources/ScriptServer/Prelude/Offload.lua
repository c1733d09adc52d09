-- Calls of moonport.offload, on the thread that runs them.
local prelude, native = ...

local format, gsub, sub = string.format, string.gsub, string.sub
local error, type, pairs, pcall, xpcall = error, type, pairs, pcall, xpcall
local describe, describe_problem, generations = prelude.describe, prelude.describe_problem, prelude.generations
local make_environment, make_moonport = prelude.make_environment, prelude.make_moonport

-- What needs no worker.
local everywhere = { log = true, generation = true, shared = true }

-- `moonport` as an offloaded function finds it.
local function moonport_without_worker(generation)
  local moonport = make_moonport(generation)
  for name, value in pairs(moonport) do
    if type(value) == "function" and not everywhere[name] then
      moonport[name] = function()
        error(format("moonport.%s cannot be called in an offloaded function, which runs on no worker", name), 2)
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
  generation.arguments[0] = sub(place, 2)
  generation.environment = make_environment(generation)
  generation.loaded.moonport = moonport_without_worker(generation)
  generations[number] = generation
  return generation
end

-- Without the places and lines that are of this file.
local function note_problem(problem)
  local text = gsub(gsub(describe_problem(problem), "^moonport:%d+: ", ""), "\n\tmoonport:%d+:[^\n]*", "")
  return (gsub(text, "\n\t%(%.%.%.tail calls%.%.%.%)$", ""))
end

local function call_module(generation, name, ...)
  local f = generation.environment.require(name)
  if type(f) ~= "function" then
    error(format("module '%s' must return a function to be offloaded, not %s", name, describe(f)), 0)
  end
  return f(...)
end

local function finish_offloaded(name, succeeded, ...)
  if not succeeded then return (...) end
  local packed, problem = pcall(native.offload_result, ...)
  if not packed then return format("module '%s': %s", name, problem) end
end

-- Makes one call; what went wrong, with its traceback, or nothing.
local function offload(number, name, ...)
  local generation = offloading_generation(number)
  return finish_offloaded(name, xpcall(call_module, note_problem, generation, name, ...))
end

prelude.offload = offload
