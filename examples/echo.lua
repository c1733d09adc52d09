-- The echo server: answers every byte, in order, at any size.
--
--   scripts/run examples/echo.lua
--   nc 127.0.0.1 8888
--
-- A codec decides what a message is. This one is "raw": a message is what one read delivered, and what is sent goes out as it
-- is, so the script need not know where a client's lines begin and end.

local moonport = require "moonport"

moonport.listen { address = "127.0.0.1:8888", codec = "raw" }

local echo = {}

function echo.on_message(conn, bytes)
  conn:send(bytes)
end

return echo
