-- The table that `require "moonport"` returns, one for each generation.
local prelude, native = ...

local broadcast, connect, listen, log = prelude.broadcast, prelude.connect, prelude.listen, prelude.log
local shared, spawn, subscribe, timer = prelude.shared, prelude.spawn, prelude.subscribe, prelude.timer

local function make_moonport(generation)
  return {
    listen = function(options) listen(generation, options) end,
    broadcast = broadcast,
    send = native.send,
    write = native.write,
    close = native.close,
    count = native.count,
    shared = function(name, options) return shared(generation, name, options) end,
    sleep = native.sleep,
    connect = function(address, options) return connect(generation, address, options) end,
    pipe = native.pipe,
    resolve = native.resolve,
    after = function(...) return timer("after", false, ...) end,
    every = function(...) return timer("every", true, ...) end,
    publish = native.publish,
    subscribe = function(channel, f) return subscribe(generation, channel, f) end,
    spawn = spawn,
    offload = native.offload,
    log = log,
    worker = { id = native.worker_id(), count = native.worker_count() },
    generation = generation.number,
  }
end

prelude.make_moonport = make_moonport
