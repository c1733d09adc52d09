-- A mail sink: takes mail by SMTP (RFC 5321) as a real server does, and prints it instead of delivering it. For programs that
-- send mail, while they are being written.
--
--   scripts/run examples/smtp.lua
--   swaks --server 127.0.0.1:2525 --from ada@example.org --to bob@example.org --header "Subject: hello"
--
-- 1. The server prints the mail.
-- 2. By hand: `nc -C 127.0.0.1 2525`, then EHLO me, MAIL FROM:<ada@example.org>, RCPT TO:<bob@example.org>, DATA, the mail, a line
--    with a dot, QUIT. HELP names all commands.
-- 3. A client that is silent for 300 seconds is told so and let go. Start with `-- 5` behind the script's name for 5 seconds.
--
-- The protocol is a conversation, and so is the script: on_open reads commands until the client leaves, and DATA reads the lines of
-- a mail in a loop of its own. A client may send many commands at once (PIPELINING): they are simply there when they are asked for.

local moonport = require "moonport"

local command_seconds = tonumber(arg[1]) or 300
local mail_bytes_max = 1048576
local recipients_max = 100
local errors_max = 10

-- A line of a mail may have 1,000 bytes; many programs write longer ones.
moonport.listen { address = "127.0.0.1:2525", codec = { type = "line", max_length = 65536 }, max_connections = 1000 }

-- Replies end with CR LF, whatever a line's end is in what comes.
local function reply(conn, ...)
  for _, line in ipairs { ... } do conn:write(line, "\r\n") end
end

-- The text without the control characters that could steer the terminal it is printed on; C2 begins those that have two bytes.
local function harmless(text)
  return (text:gsub("[^%C\t\n]", "?"):gsub("\xC2[\x80-\x9F]", "?"))
end

-- The path between < and > and the parameters behind it: "FROM:<ada@example.org> SIZE=100".
local function path_of(argument, word)
  local start, path, rest = argument:match("^(%a+):%s*<([^<>%s]*)>(.*)$")
  if not start or start:upper() ~= word or not rest:find("^%s*$") and not rest:find("^%s") then return nil end
  local parameters = {}
  for name, value in rest:gmatch("([%w-]+)=?(%S*)") do parameters[name:upper()] = value end
  return path, parameters
end

-- The lines of a mail up to the one with a single dot, or nil and why there are none. A dot at a line's start was doubled.
local function read_mail(conn)
  local lines, bytes = {}, 0
  while true do
    local line, problem = conn:receive(nil, command_seconds)
    if not line then return nil, problem end
    if line == "." then break end
    if line:sub(1, 1) == "." then line = line:sub(2) end
    bytes = bytes + #line + 2
    if bytes <= mail_bytes_max then lines[#lines + 1] = line else lines = {} end
  end
  if bytes > mail_bytes_max then return nil, "too big" end
  return lines, bytes
end

-- Each command gets the session and what stands behind it, and answers by what it returns; DATA talks by itself. An answer that
-- begins with 5 counts as an error of the client's.
local commands = {}

local function greet(session, argument)
  if argument == "" then return "501 5.5.4 your name, please" end
  session.name, session.from, session.to = argument, nil, nil
end

function commands.HELO(session, argument)
  return greet(session, argument) or "250 mail.sink"
end

function commands.EHLO(session, argument)
  local problem = greet(session, argument)
  if problem then return problem end
  return "250-mail.sink", "250-PIPELINING", "250-8BITMIME", "250-ENHANCEDSTATUSCODES", "250-HELP",
    "250 SIZE " .. mail_bytes_max
end

function commands.MAIL(session, argument)
  if not session.name then return "503 5.5.1 say HELO or EHLO first" end
  if session.from then return "503 5.5.1 one mail at a time" end
  local path, parameters = path_of(argument, "FROM")
  if not path then return "501 5.5.4 MAIL FROM:<address>" end
  if (tonumber(parameters.SIZE) or 0) > mail_bytes_max then return "552 5.3.4 too big" end
  session.from, session.to = path, {}
  return "250 2.1.0 ok"
end

function commands.RCPT(session, argument)
  if not session.from then return "503 5.5.1 say MAIL first" end
  local path = path_of(argument, "TO")
  if not path or path == "" then return "501 5.5.4 RCPT TO:<address>" end
  if #session.to >= recipients_max then return "452 4.5.3 too many recipients" end
  table.insert(session.to, path)
  return "250 2.1.5 ok"
end

function commands.DATA(session, argument)
  if argument ~= "" then return "501 5.5.4 DATA takes nothing" end
  if not session.to or #session.to == 0 then return "503 5.5.1 say MAIL and RCPT first" end
  reply(session.conn, "354 end with a line with a dot")
  local lines, outcome = read_mail(session.conn)
  local from, to = session.from, session.to
  session.from, session.to = nil, nil
  if outcome == "too big" then return "552 5.3.4 too big" end
  if not lines then
    session.ended = outcome
    return
  end
  print(("mail from <%s> to <%s>, %d bytes\n| %s"):format(
    harmless(from), harmless(table.concat(to, ">, <")), outcome, harmless(table.concat(lines, "\n")):gsub("\n", "\n| ")))
  return "250 2.0.0 printed"
end

function commands.RSET(session)
  session.from, session.to = nil, nil
  return "250 2.0.0 ok"
end

function commands.NOOP()
  return "250 2.0.0 ok"
end

function commands.VRFY()
  return "252 2.5.2 try it"
end

function commands.HELP()
  return "214 2.0.0 HELO EHLO MAIL RCPT DATA RSET NOOP VRFY HELP QUIT"
end

function commands.QUIT(session)
  session.ended = "quit"
  return "221 2.0.0 good bye"
end

local function answer(session, line)
  local verb, argument = line:match("^(%a+)%s*(.-)%s*$")
  local command = verb and commands[verb:upper()]
  if not command then return "500 5.5.2 what? HELP helps" end
  return command(session, argument)
end

local smtp = {}

function smtp.on_open(conn)
  local session = { conn = conn, errors = 0 }
  reply(conn, "220 mail.sink ESMTP, nothing is delivered")
  while not session.ended do
    local line, problem = conn:receive(nil, command_seconds)
    if line then
      local answers = { answer(session, line) }
      reply(conn, table.unpack(answers))
      if answers[1] and answers[1]:sub(1, 1) == "5" then session.errors = session.errors + 1 end
      if session.errors >= errors_max then session.ended = "too many errors" end
    else
      session.ended = problem
    end
  end
  if session.ended == "timeout" then reply(conn, "421 4.4.2 too slow") end
  if session.ended == "too many errors" then reply(conn, "421 4.7.0 too many errors") end
  conn:close(session.ended)
end

return smtp
