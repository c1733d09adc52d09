-- A small game server: players move about in worlds, and everybody in a world sees where the others are, 20 times in a second.
--
--   scripts/run examples/game.lua
--   nc 127.0.0.1 6030
--
-- 1. `join moon ada` enters the world "moon" under the name "ada"; do the same as `bob` from a second terminal.
-- 2. `go 2 0` sets off: two units a second to the right, at most 10. Each tick both terminals get a line `at ada 50.1 50.0`
--    with those who moved. `go 0 0` stops. The world has 100 by 100 units, and its edges are walls.
-- 3. `say hello` speaks to the world, `who` counts its players, `quit` leaves. A third player in another world sees nothing of it.
-- 4. Change `ticks_per_second` below, save, and type `scripts/run reload`: the players keep their places and go on.
--
-- A world is a room. Its players may be on any worker, and each worker moves its own: there is no state that workers share, since a
-- broadcast reaches the whole room. What a slow client has not read is dropped, oldest first, for it is out of date.

local moonport = require "moonport"

local ticks_per_second = 20
local size, speed_max = 100, 10
local name_bytes_max = 16

moonport.listen {
  address = "127.0.0.1:6030",
  codec = { type = "line", max_length = 200 },
  output_limit = { hard = 65536, soft = 32768, policy = "drop_oldest" },
}

-- This worker's players by connection: { world, name, x, y, dx, dy }.
local players = {}
local beat = 0

local function within(value, low, high)
  return math.max(low, math.min(high, value))
end

-- Moves a player by one tick; whether it is elsewhere now.
local function move(player)
  local x = within(player.x + player.dx / ticks_per_second, 0, size)
  local y = within(player.y + player.dy / ticks_per_second, 0, size)
  local moved = x ~= player.x or y ~= player.y
  player.x, player.y = x, y
  return moved
end

-- One tick: who moved, and once a second everybody, so that newcomers learn where those are who stand still.
local function tick()
  beat = beat + 1
  local places = {}
  for _, player in pairs(players) do
    if move(player) or beat % ticks_per_second == 0 then
      local list = places[player.world] or {}
      places[player.world] = list
      list[#list + 1] = ("%s %.1f %.1f"):format(player.name, player.x, player.y)
    end
  end
  for world, list in pairs(places) do
    moonport.broadcast("at " .. table.concat(list, ", "), { room = world })
  end
end

local function leave(conn)
  local player = players[conn]
  if not player then return end
  players[conn] = nil
  conn:leave(player.world)
  moonport.broadcast(player.name .. " left", { room = player.world })
end

local commands = {}

function commands.join(conn, world, name)
  if not world or not name or #name > name_bytes_max then return conn:send("join WORLD NAME") end
  leave(conn)
  players[conn] = { world = world, name = name, x = size / 2, y = size / 2, dx = 0, dy = 0 }
  conn:join(world)
  moonport.broadcast(name .. " entered", { room = world })
end

function commands.go(conn, dx, dy)
  local player = players[conn]
  dx, dy = tonumber(dx), tonumber(dy)
  -- What is no number is not equal to itself.
  if not player or not dx or not dy or dx ~= dx or dy ~= dy then return conn:send("join a world, then go DX DY") end
  player.dx, player.dy = within(dx, -speed_max, speed_max), within(dy, -speed_max, speed_max)
end

function commands.say(conn, ...)
  local player = players[conn]
  if not player then return conn:send("join a world first") end
  moonport.broadcast(player.name .. " says " .. table.concat({ ... }, " "), { room = player.world })
end

function commands.who(conn)
  local player = players[conn]
  conn:send(player and moonport.count(player.world) or 0, " here")
end

function commands.quit(conn)
  leave(conn)
  conn:close()
end

local game = {}

function game.on_start()
  moonport.every(1 / ticks_per_second, tick)
end

function game.on_open(conn)
  conn:send("join WORLD NAME, go DX DY, say WORDS, who, quit")
end

function game.on_message(conn, line)
  local words = {}
  for word in line:gmatch("%S+") do words[#words + 1] = word end
  local command = commands[words[1]]
  if not command then return conn:send("there are: join, go, say, who, quit") end
  command(conn, table.unpack(words, 2))
end

function game.on_close(conn)
  leave(conn)
end

-- The players go over to new code as they are: connections stay the same objects.
function game.on_save()
  return players
end

function game.on_restore(saved)
  players = saved or players
end

return game
