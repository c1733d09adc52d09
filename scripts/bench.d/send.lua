-- Tells each client its id and worker; a client's first line is the id of the one that gets all its further lines.
local moonport = require "moonport"
moonport.listen { address = "127.0.0.1:0", codec = "line" }
return {
  on_open = function(conn) conn:send(conn.id, " ", moonport.worker.id) end,
  on_message = function(conn, text)
    local partner = conn.ctx.partner
    if not partner then conn.ctx.partner = math.tointeger(tonumber(text)) return end
    moonport.send(partner, text)
  end,
}
