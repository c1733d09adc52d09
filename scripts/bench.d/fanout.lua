-- What a publisher says goes to every client that said "subscribe".
local moonport = require "moonport"
moonport.listen { address = "127.0.0.1:0", codec = "line" }
local to_subscribers = { room = "subscribers" }
return {
  on_message = function(conn, text)
    if text == "subscribe" then return conn:join("subscribers") end
    moonport.broadcast(text, to_subscribers)
  end,
}
