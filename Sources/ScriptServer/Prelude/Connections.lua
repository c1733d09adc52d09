-- The methods of a connection that are written in Lua.
local prelude, native, connection = ...

local check_connection = prelude.check_connection

local receive = connection.receive

local function next_message(conn)
  return (receive(conn))
end

function connection.messages(conn)
  check_connection(conn, "messages")
  return next_message, conn
end
