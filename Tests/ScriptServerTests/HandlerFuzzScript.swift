// The script that the fuzz test of handlers runs: each message has it do something at random, and for each connection it keeps what
// must have been sent to it, from what its own calls were told.
//
// Must never know: what the server makes of its calls.

/// The script, with what the test asks it.
enum HandlerFuzzScript {
  /// How the listeners frame. While one of a worker's codecs is written in Lua, broadcasts are not gathered: so only in some cases.
  static let frames: [@Sendable ([UInt8]) -> [UInt8]] = [
    { $0 + [UInt8(ascii: "\n")] },
    { Array("\($0.count):".utf8) + $0 + [UInt8(ascii: ",")] },
    { $0 + [UInt8(ascii: "|")] },
  ]

  /// `on_console` is asked: "seed N", "last" for the newest connection's id, "expected ID" for all the bytes that must come,
  /// "state ID" for open, closed or aborted, "problem" for what went wrong, and "rest" to end what waits.
  /// - Parameter hasScriptedCodec: the third listener's codec is written in Lua.
  static func text(hasScriptedCodec: Bool) -> String {
    "local hasScriptedCodec = \(hasScriptedCodec)\n" + text
  }

  private static let text = """
    local moonport = require "moonport"
    local random, insert = math.random, table.insert
    local function decode(bytes, position)
      local at = bytes:find("|", position, true)
      if at then return bytes:sub(position, at - 1), at + 1 end
    end
    local function encode(text) return text .. "|" end
    local scripted, builtin = { decode = decode, encode = encode }, { type = "delimiter", delimiter = "|" }
    local codecs = { "line", "netstring", hasScriptedCodec and scripted or builtin }
    local frame = {
      function(text) return text .. "\\n" end, function(text) return #text .. ":" .. text .. "," end, encode,
    }
    -- What must have been sent, by id; who is open, in no order; who is in the one room.
    local expected, state, open, room = {}, {}, {}, {}
    local h, last, problem, count, resting = {}, 0, "", 0, false

    local function text()
      count = count + 1
      return count .. ("x"):rep(random(30) == 1 and random(9000) or random(0, 40))
    end
    local function note(conn, bytes) insert(expected[conn.id], bytes) end
    local function framed(conn, text) return frame[conn.ctx.kind](text) end
    local function forget(conn, how)
      if state[conn.id] ~= "open" then return end
      state[conn.id] = how
      room[conn.id] = nil
      for place, other in ipairs(open) do
        if other == conn then open[place] = open[#open] open[#open] = nil break end
      end
    end
    -- No call on a connection succeeds after the script has closed it; if one fails before, the test finds it lost.
    local function told(conn, what, done, reason)
      -- A handler that waits as the client ends its side may still answer after on_close.
      if done and (state[conn.id] == "closed" or state[conn.id] == "aborted") then
        problem = what .. " to a connection that is " .. state[conn.id]
      elseif not done then
        forget(conn, "lost: " .. what .. " said " .. reason)
      end
      return done
    end
    local function any() return open[random(#open + 1)] end

    local act
    local acts = {
      function(conn) local t = text() if told(conn, "send", conn:send(t)) then note(conn, framed(conn, t)) end end,
      function(conn) local t = text() if told(conn, "write", conn:write(t)) then note(conn, t) end end,
      function(conn)
        local t = text()
        if not (hasScriptedCodec and conn.ctx.kind == 3) and told(conn, "send", conn:send(t, 7, "!")) then
          note(conn, framed(conn, t .. "7!"))
        end
      end,
      function(conn) local t = text() if told(conn, "id", moonport.send(conn.id, t)) then note(conn, framed(conn, t)) end end,
      function(conn) local t = text() if told(conn, "id", moonport.write(conn.id, t)) then note(conn, t) end end,
      function(conn)
        local t, except = text(), random(3) == 1 and conn or nil
        moonport.broadcast(t, except and { except = except })
        for _, other in ipairs(open) do if other ~= except then note(other, framed(other, t)) end end
      end,
      function(conn)
        local t = text()
        moonport.broadcast(t, { room = "room" })
        for _, other in ipairs(open) do if room[other.id] then note(other, framed(other, t)) end end
      end,
      function(conn) if conn:join("room") and state[conn.id] == "open" then room[conn.id] = true end end,
      function(conn) conn:leave("room") room[conn.id] = nil end,
      function() moonport.sleep(0) end,
      function() coroutine.yield() end,
      function() moonport.sleep(0.0005) end,
      function(conn)
        local t = text()
        coroutine.wrap(function() if told(conn, "send", conn:send(t)) then note(conn, framed(conn, t)) end end)()
      end,
      function() error("as told") end,
      function() pcall(error, "kept") collectgarbage("step") end,
      function(conn) if random(6) == 1 then conn:close("as told") forget(conn, "closed") end end,
      function(conn) if random(12) == 1 then forget(conn, "aborted") conn:abort() end end,
      function(conn)
        if not resting then moonport.after(random(2) == 1 and 0 or 0.001, function() act(conn) end) end
      end,
      function(conn) if not resting then moonport.spawn(function() moonport.sleep(0) act(conn) end) end end,
      function(conn)
        if resting or state[conn.id] ~= "open" then return end
        conn:pause()
        moonport.after(0.001, function() conn:resume() end)
      end,
      function(conn) if conn:buffered() < 0 or conn:closed() == (state[conn.id] == "open") then problem = "buffered" end end,
      function(conn)
        if conn.ctx.kind ~= 1 or state[conn.id] ~= "open" then return end
        conn:set_codec("netstring")
        local t = text()
        if told(conn, "netstring", conn:send(t)) then note(conn, #t .. ":" .. t .. ",") end
        conn:set_codec("line")
      end,
    }
    function act(conn) acts[random(#acts)](random(3) == 1 and any() or conn) end

    -- The clients number their messages.
    local function took(conn, message)
      conn.ctx.taken = conn.ctx.taken + 1
      if message:match("^%d+") ~= tostring(conn.ctx.taken) then
        problem = ("message %d of %d was %q"):format(conn.ctx.taken, conn.id, message)
      end
    end
    local function opened(conn, kind)
      conn.ctx.kind, conn.ctx.taken = kind, 0
      last = conn.id
      expected[conn.id], state[conn.id] = {}, "open"
      insert(open, conn)
      if random(2) == 1 then act(conn) end
    end
    for kind, codec in ipairs(codecs) do
      local handler = { on_open = function(conn) opened(conn, kind) end }
      moonport.listen { address = "127.0.0.1:" .. kind, codec = codec, handler = setmetatable(handler, { __index = h }) }
    end
    function h.on_message(conn, message)
      took(conn, message)
      -- For a while it only answers, as most do.
      if random(20) == 1 then conn.ctx.calm = not conn.ctx.calm end
      if conn.ctx.calm then return acts[random(2)](conn) end
      if random(8) == 1 and not resting then
        message = conn:receive()
        if message then took(conn, message) end
      end
      for _ = 1, random(0, 3) do act(conn) end
    end
    function h.on_close(conn, reason)
      forget(conn, "lost: closed by " .. reason)
      -- An error in on_error.
      if reason == "error" then state[conn.id] = "closed" end
      if random(3) == 1 and not resting then act(conn) end
    end
    function h.on_error(conn, message)
      if not message:find("as told", 1, true) then problem = message end
      if random(4) == 1 then act(conn) end
    end
    function h.on_console(line)
      local word, id = line:match("^(%l+) ?(%d*)$")
      id = math.tointeger(id)
      if word == "seed" then math.randomseed(id) end
      if word == "rest" then resting = true end
      if word == "last" then return tostring(last) end
      if word == "expected" then return table.concat(expected[id]) end
      if word == "state" then return state[id] end
      return problem
    end
    return h
    """
}
