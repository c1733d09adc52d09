-- Data of one's own for each client: how many messages and bytes it has sent.
--
--   scripts/run examples/totals.lua
--   scripts/run connect 127.0.0.1:12345
--
-- 1. Type a few lines, then `total`: the answer is what *you* have sent so far, say "messages: 2, bytes: 10".
-- 2. Change the text of the answer below, save, and type `scripts/run reload` in another terminal. Type `total` again: the new
--    words, the same figures, since conn.ctx outlives a reload as the connection itself does.
-- 3. The listener takes 100 clients at once; one more is accepted and closed at once. Start with `-- 2` behind the
--    script's name to see that with three clients: what follows `--` is in `arg`.

local moonport = require "moonport"

moonport.listen {
  address = "127.0.0.1:12345",
  codec = "line",
  max_connections = math.tointeger(arg[1]) or 100,
}

local totals = {}

function totals.on_open(conn)
  conn.ctx.messages = 0
  conn.ctx.bytes = 0
end

function totals.on_message(conn, text)
  local sent = conn.ctx
  if text == "total" then
    return conn:send("messages: ", sent.messages, ", bytes: ", sent.bytes)
  end
  sent.messages = sent.messages + 1
  sent.bytes = sent.bytes + #text
end

return totals
