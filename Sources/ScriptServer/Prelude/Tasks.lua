-- moonport.spawn: a task keeps its results in the script's own object, so that they are freed with it.
local prelude, native = ...

local find, format, sub = string.find, string.format, string.sub
local pack, unpack, traceback, running, error = table.pack, table.unpack, debug.traceback, coroutine.running, error
local type, select, tostring, setmetatable, getmetatable = type, select, tostring, setmetatable, getmetatable
local xpcall = xpcall
local describe, kinds = prelude.describe, prelude.kinds

-- What a task left is kept in its object: `results`, or `problem` with its `traceback`. So it lives as long as the object does.
local task_methods = {}
task_methods.__index = task_methods
task_methods.__name = "task"

-- Tracebacks of errors that are on their way out of tasks, by coroutine: the error itself stays as it was raised.
local tracebacks = setmetatable({}, { __mode = "k" })

-- An error with its traceback, which ends where the script's own functions do; to be called by a message handler.
local function describe_problem(problem)
  local text = traceback(tostring(problem), 3)
  local last = find(text, "\n\t[C]: in function 'xpcall'\n\tmoonport:", 1, true)
  return last and sub(text, 1, last - 1) or text
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
  if type(f) ~= "function" then error(format("bad argument #1 to 'spawn' (function expected, got %s)", type(f)), 2) end
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
    error(format("bad argument #1 to '%s' (task expected, got %s)", method, task == nil and "no value" or type(task)), 3)
  end
end

function task_methods:wait(timeout)
  check_task(self, "wait")
  if timeout ~= nil and kinds.seconds(timeout) then
    error(format("bad argument #1 to 'wait' (a number of seconds, at least 0, expected, got %s)", describe(timeout)), 2)
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

prelude.describe_problem = describe_problem
prelude.spawn = spawn
