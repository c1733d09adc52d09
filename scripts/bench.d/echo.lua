-- Echoes messages; the codec is the script's first argument.
local moonport = require "moonport"
moonport.listen { address = "127.0.0.1:0", codec = arg[1] == "length" and { type = "length", size = 4 } or arg[1] }
return { on_message = function(conn, message) conn:send(message) end }
