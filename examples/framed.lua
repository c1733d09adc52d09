-- Binary protocols: one listener for each way to cut a stream of bytes into messages. All answer in capitals.
--
--   scripts/run examples/framed.lua
--
-- Then, in another terminal (nc -N tells the server that no more will come; od -c shows the bytes that have no picture):
--
--   printf 'hello\n'          | nc -N 127.0.0.1 7001            line: bytes up to a line feed
--   printf 'hello\0'          | nc -N 127.0.0.1 7002 | od -c    delimiter: bytes up to a zero byte
--   printf 'hello..!'         | nc -N 127.0.0.1 7003            fixed: 8 bytes each
--   printf '\0\5hello'        | nc -N 127.0.0.1 7004 | od -c    length: two bytes say how many follow
--   printf '5:hello,'         | nc -N 127.0.0.1 7005            netstring: the length in digits, a colon, a comma
--   printf '\7\0\5hello'      | nc -N 127.0.0.1 7006 | od -c    a codec of one's own: a kind, a length, a body
--
-- However a client's bytes are split on their way, on_message gets whole messages; conn:send puts the frame around.

local moonport = require "moonport"

moonport.listen { address = "127.0.0.1:7001", codec = "line" }
moonport.listen { address = "127.0.0.1:7002", codec = { type = "delimiter", delimiter = "\0" } }
moonport.listen { address = "127.0.0.1:7003", codec = { type = "fixed", length = 8 } }
moonport.listen { address = "127.0.0.1:7004", codec = { type = "length", size = 2, max_length = 4096 } }
moonport.listen { address = "127.0.0.1:7005", codec = "netstring" }

-- A codec of one's own is two functions. Here a message is a table: { kind = a number, body = a string }.
local record = { max_length = 65538 }

-- The message that begins at `position`, and where the next one begins; nothing while it is incomplete.
function record.decode(bytes, position)
  local body_first = position + 3
  if #bytes < body_first - 1 then return end
  local kind, length = string.unpack(">BI2", bytes, position)
  local body_last = body_first + length - 1
  if #bytes < body_last then return end
  return { kind = kind, body = bytes:sub(body_first, body_last) }, body_last + 1
end

function record.encode(message)
  return string.pack(">Bs2", message.kind, message.body)
end

-- What comes in as tables gets handlers of its own.
local records = {}

function records.on_message(conn, message)
  conn:send { kind = message.kind, body = message.body:upper() }
end

moonport.listen { address = "127.0.0.1:7006", codec = record, handler = records }

local framed = {}

function framed.on_message(conn, message)
  conn:send(message:upper())
end

return framed
