-- A login as a conversation: two questions, three tries, and a bound on how long each answer may take.
--
--   scripts/run examples/login.lua
--   nc 127.0.0.1 6010
--
-- 1. Log in as `ada` with the password `lovelace`, or as `bob` with `builder`. Then `who` lists who is in, and `quit` leaves.
-- 2. Log in once more from a second terminal: the first one is told.
-- 3. Give a wrong password three times, or no answer for 30 seconds: the server says why, and hangs up. Start with `-- 3` behind
--    the script's name to have it wait 3 seconds only.
--
-- All of one client's states are places in one function: what has been answered is in its local variables, and while it waits in
-- conn:receive, everybody else goes on.

local moonport = require "moonport"

local answer_seconds = tonumber(arg[1]) or 30
local tries_max = 3
-- A wrong password costs this long, so that guessing takes its time.
local wrong_seconds = 0.5

moonport.listen { address = "127.0.0.1:6010", codec = { type = "line", max_length = 200 } }

local passwords = { ada = "lovelace", bob = "builder" }

-- Asks one question; the answer, or nil and why there is none.
local function ask(conn, question)
  conn:write(question, ": ")
  return conn:receive(nil, answer_seconds)
end

-- The name of the user who logged in, or nil and why nobody did.
local function log_in(conn)
  for _ = 1, tries_max do
    local name, problem = ask(conn, "name")
    if not name then return nil, problem end
    local password
    password, problem = ask(conn, "password")
    if not password then return nil, problem end
    if password == passwords[name] then return name end
    moonport.log.warn("wrong password", { name = name, peer = conn.peer })
    moonport.sleep(wrong_seconds)
    conn:send("wrong name or password")
  end
  return nil, "too many tries"
end

local commands = {}

function commands.who(conn)
  conn:send(moonport.count("inside"), " inside")
end

function commands.quit(conn)
  conn:send("good bye, ", conn.ctx.name)
  conn:close()
end

local login = {}

function login.on_open(conn)
  local name, problem = log_in(conn)
  if not name then
    conn:send("no login: ", problem)
    return conn:close(problem)
  end
  conn.ctx.name = name
  conn:join("inside")
  conn:send("welcome, ", name)
  moonport.broadcast(name .. " came in", { room = "inside", except = conn })
  for line in conn:messages() do
    local command = commands[line]
    if command then command(conn) else conn:send("there are: who, quit") end
  end
end

function login.on_close(conn, reason)
  if conn.ctx.name then moonport.broadcast(conn.ctx.name .. " left", { room = "inside" }) end
end

return login
