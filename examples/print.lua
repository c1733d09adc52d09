-- The smallest demonstration: prints what each client sends, and when it is gone.
--
--   scripts/run examples/print.lua
--   nc 127.0.0.1 20055
--
-- Type a line in nc and the server prints it. Press Ctrl-C in nc, or kill it, and the server prints "client closed":
-- on_close is called exactly once for every client, whether it said goodbye or not.

local moonport = require "moonport"

-- Without a codec a message is whatever one read delivered, so a client need not send whole lines.
moonport.listen { address = "127.0.0.1:20055" }

local printer = {}

function printer.on_message(conn, bytes)
  -- Control characters but tab and line feed could steer the terminal; C2 begins those that have two bytes.
  local text = bytes:gsub("\r?\n$", ""):gsub("[^%C\t\n]", "?"):gsub("\xC2[\x80-\x9F]", "?")
  print(text)
end

function printer.on_close(conn, reason)
  print("client closed")
end

return printer
