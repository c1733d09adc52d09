-- Echoes lines with luv (libuv for Lua), on LuaJIT or Lua 5.4: cuts what a read brought and answers all its lines in one write.
package.cpath = package.cpath .. ";" .. (os.getenv("LUV_CPATH") or "")
local uv = require "luv"

local function handle(client, line, replies)
  replies[#replies + 1] = line .. "\n"
end

local server = uv.new_tcp()
server:bind("127.0.0.1", tonumber(os.getenv("BENCH_PORT")))
server:listen(4096, function()
  local client = uv.new_tcp()
  server:accept(client)
  client:nodelay(true)
  local rest = ""
  client:read_start(function(failure, bytes)
    if failure or not bytes then return client:close() end
    local data, from, replies = #rest > 0 and rest .. bytes or bytes, 1, {}
    while true do
      local stop = string.find(data, "\n", from, true)
      if not stop then break end
      handle(client, string.sub(data, from, stop - 1), replies)
      from = stop + 1
    end
    rest = from > #data and "" or string.sub(data, from)
    if #replies > 0 then client:write(replies) end
  end)
end)
uv.run()
