-- A TCP proxy: each client is connected to one of several servers, and their bytes are passed on both ways.
--
-- Start two servers, the proxy in front of them, and a client:
--
--   scripts/run examples/echo.lua --listen 127.0.0.1:7001 --admin echo1.sock
--   scripts/run examples/echo.lua --listen 127.0.0.1:7002 --admin echo2.sock
--   scripts/run examples/proxy.lua --admin proxy.sock -- 127.0.0.1:7001 127.0.0.1:7002
--   scripts/run connect 127.0.0.1:6000
--
-- 1. What is typed comes back through the proxy. New clients are spread over the servers in turn.
-- 2. Stop one of the servers: the proxy says that it is down, and new clients go to the other one. Start it again: within two
--    seconds it gets clients again. With no server left, clients are let go at once.
-- 3. `scripts/run reload --admin proxy.sock` while clients are connected: nobody notices, as the bytes need no Lua.
-- 4. A client that ends its own side still gets the server's answer: half-closes are passed on, too.
--
-- The servers stand behind `--`; without any it is the two above.

local moonport = require "moonport"

local check_seconds = 2    -- between two looks at a server
local connect_seconds = 3  -- for one server before the next one is tried

moonport.listen { address = "127.0.0.1:6000", idle_timeout = 3600 }

local addresses = #arg > 0 and arg or { "127.0.0.1:7001", "127.0.0.1:7002" }
local upstreams = {}
for _, address in ipairs(addresses) do upstreams[#upstreams + 1] = { address = address, is_up = true } end

local next_upstream = moonport.worker.id

-- Notes whether a server can be reached, and says so when that has changed.
local function note(upstream, is_up, reason)
  if upstream.is_up == is_up then return end
  upstream.is_up = is_up
  if is_up then
    moonport.log.info("upstream is back", { address = upstream.address, worker = moonport.worker.id })
  else
    moonport.log.warn("upstream is down", { address = upstream.address, reason = reason, worker = moonport.worker.id })
  end
end

local function dial(upstream)
  local conn, reason = moonport.connect(upstream.address, { timeout = connect_seconds })
  note(upstream, conn ~= nil, reason)
  return conn
end

-- A connection to the next server that can be reached: first those that are up, in turn, then the others, in case one is back.
local function dial_any()
  next_upstream = next_upstream % #upstreams + 1
  for _, wanted in ipairs { true, false } do
    for step = 0, #upstreams - 1 do
      local upstream = upstreams[(next_upstream + step - 1) % #upstreams + 1]
      if upstream.is_up == wanted then
        local conn = dial(upstream)
        if conn then return conn end
      end
    end
  end
end

-- One timer for each server, so that one that does not answer delays nobody's check.
local function watch(upstream)
  moonport.every(check_seconds, function()
    local conn = dial(upstream)
    if conn then conn:close() end
  end)
end

for _, upstream in ipairs(upstreams) do watch(upstream) end

local proxy = {}

function proxy.on_open(client)
  local server = dial_any()
  if not server then
    moonport.log.error("no upstream for a client", { peer = client.peer })
    return client:close("no upstream")
  end
  if client:closed() then return server:close() end
  local sent, received, to_server, to_client = moonport.pipe(client, server)
  if sent then
    moonport.log.debug("done", { peer = client.peer, server = server.peer, sent = sent, received = received })
  else
    moonport.log.info("cut off", { peer = client.peer, server = server.peer, reason = received, sent = to_server,
      received = to_client })
  end
end

return proxy
