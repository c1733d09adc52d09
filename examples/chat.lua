-- The classic chat server: what one client says, all the others hear.
--
-- Start it in one terminal, and a client in each of two others:
--
--   scripts/run examples/chat.lua --console
--   scripts/run connect 127.0.0.1:6000        (or: nc 127.0.0.1 6000)
--
-- 1. The first client is told when the second one enters.
-- 2. A line typed in one client appears in the other, and at the server as "A client says: ...".
-- 3. A line typed at the server appears in both: --console hands it to on_console.
-- 4. `quit` leaves, and the others are told. A client that is gone is in no room any more, so nothing is sent to it.
-- 5. Change a line below, for example pass on "> " .. text, save, and type `scripts/run reload` in a fourth terminal: what is
--    said from now on arrives in the new way, and nobody was disconnected.

local moonport = require "moonport"

moonport.listen { address = "127.0.0.1:6000", codec = "line" }

local chat = { version = "1" }

function chat.on_open(conn)
  conn:join("lobby")
  moonport.broadcast(conn.peer .. " entered", { room = "lobby", except = conn })
end

function chat.on_message(conn, text)
  -- Control characters could steer the terminal that this is printed on; C2 begins those that have two bytes.
  print("A client says: " .. text:gsub("%c", "?"):gsub("\xC2[\x80-\x9F]", "?"))
  moonport.broadcast(text, { room = "lobby", except = conn })
end

function chat.on_close(conn, reason)
  moonport.broadcast(conn.peer .. " left", { room = "lobby" })
end

function chat.on_console(line)
  moonport.broadcast(line, { room = "lobby" })
end

return chat
