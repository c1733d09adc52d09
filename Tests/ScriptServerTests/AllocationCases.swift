// What the test of refused allocations runs: a script with one case for every native, method and function.

extension AllocationFailureTests {
  /// Has one case for every native, method and function; `on_console` runs one, `on_drain` says whether it came to its end,
  /// `on_stop` undoes it, and `on_start` lists what has no case.
  static let script = """
    local moonport = require "moonport"
    moonport.listen { address = "127.0.0.1:1" }
    local conn, methods, native
    local done, missing

    local function fails(f, ...)
      local ok, message = pcall(f, ...)
      if not ok and message:find("not enough memory") then error(message, 0) end
      assert(not ok)
    end
    local function decode(bytes, position) return bytes:sub(position), #bytes + 1 end
    local function encode(message) return "<" .. tostring(message) .. ">" end

    local cases = {
      conn = {
        send = function() assert(conn:send("a", 1, "b")) fails(conn.send, conn, {}) end,
        write = function() assert(conn:write("a", 2.5)) end,
        close = function() methods.close(conn, "why") end,
        abort = function() methods.abort(conn) end,
        pause = function() conn:pause() end,
        resume = function() conn:resume() end,
        buffered = function() return conn:buffered() end,
        closed = function() return conn:closed() end,
        receive = function() assert(conn:receive(3) == "in\\n") end,
        messages = function() for message in conn:messages() do assert(message == "in\\n") break end end,
        join = function() conn:join("some room") end,
        leave = function() conn:leave("some room") end,
        rooms = function() conn:join("a room of some length") conn:join("b") assert(#conn:rooms() >= 2) end,
        set_codec = function() conn:set_codec { decode = decode, encode = encode } conn:send { } conn:set_codec("raw") end,
      },
      native = {
        main = function() assert(native.main(moonport.generation)) end,
        module = function()
          assert(native.module(moonport.generation, "mod"))
          assert(not native.module(moonport.generation, "missing.module"))
        end,
        arguments = function() native.arguments() end,
        restores = function() native.restores(moonport.generation) end,
        check_address = function()
          assert(native.check_address("127.0.0.1:1") == nil)
          assert(native.check_address("nowhere"))
        end,
        codec = function()
          assert(native.codec("line", false))
          assert(native.codec("length", false, 10) == nil)
        end,
        use_codec = function() native.use_codec(conn, native.codec("raw", false)) end,
        handlers = function() assert(not native.handlers(decode, nil, encode, decode)) end,
        listener = function() assert(not native.listener("p", "a", 0, 0, 0, 0, 0, 0, 1, 1, 1, "close", 1, 0, 0, 0, 0, "pause")) end,
        is_connection = function() assert(native.is_connection(conn)) end,
        print = function() native.print("") end,
        log = function() native.log("debug", "message", "field", "svalue") end,
        broadcast = function() native.broadcast("a", "some room", conn.id) end,
        send = function() native.send(conn.id, "x") end,
        write = function() native.write(conn.id, "x") end,
        close = function() native.close(1234567890123, "x") end,
        count = function() return native.count() + native.count("some room") end,
        worker_id = function() return native.worker_id() end,
        worker_count = function() return native.worker_count() end,
        sleep = function() native.sleep(0) end,
        timer = function() native.cancel_timer(native.timer(100, true, function() return decode end)) end,
        cancel_timer = function() native.cancel_timer(1) end,
        publish = function() assert(native.publish("a channel", 1, "x", { { y = 1.5 } })) end,
        subscribe = function()
          local number = native.subscribe(moonport.generation, "a channel of some length", function() return decode end)
          assert(native.cancel_subscription(number))
        end,
        offload = function() assert(select(2, native.offload("module", { "x", y = 1 })) == "busy") end,
        offload_result = function() native.offload_result(1, { "x" }) end,
        cancel_subscription = function() assert(not native.cancel_subscription(1)) end,
        spawn = function() assert(native["task:wait"](native.spawn(function(ending) return decode end))) end,
        ["task:wait"] = function() assert(native["task:wait"](1)) end,
        cancel_task = function() assert(native.cancel_task(native.spawn(function(ending) return decode end))) end,
        task_ending = function() assert(not native.task_ending()) end,
        task_failed = function() native.task_failed("message") end,
        is_strict = function() return native.is_strict() end,
        shared = function() assert(native.shared("a dictionary", nil, false):get("missing") == nil) end,
        resolve = function() assert(native.resolve("127.0.0.1")[1] == "127.0.0.1") end,
        connect = function() assert(native.connect("nowhere")) end,
        begin_connect = function() assert(not native.begin_connect("unix:/nonexistent", 0, 5, "x", nil, decode)) end,
        named_handlers = function() assert(not native.named_handlers("x", nil, decode)) end,
        pipe = function() fails(native.pipe, conn, conn) end,
      },
      moonport = {
        listen = function() fails(moonport.listen, { address = "127.0.0.1:1" }) end,
        broadcast = function()
          moonport.broadcast("x")
          moonport.broadcast("x", { room = "some room", except = conn })
          fails(moonport.broadcast, "x", { rom = 1 })
        end,
        send = function() moonport.send(conn.id, 17) end,
        write = function() moonport.write(conn.id, "x") end,
        close = function() moonport.close(1234567890123, "x") end,
        count = function() return moonport.count() + moonport.count("some room") end,
        sleep = function() moonport.sleep(0) end,
        after = function() moonport.after(100, function(a, b) return a, b end, 1, "b"):cancel() end,
        every = function() moonport.every(100, function(a, b) return a, b end, 1, "b"):cancel() end,
        offload = function() fails(moonport.offload, "module", decode) end,
        shared = function() assert(moonport.shared("a dictionary", { max_memory = 1000000 }):set("x", { 1 })) end,
        resolve = function() assert(moonport.resolve("::1")[1] == "::1") end,
        connect = function()
          assert(not moonport.connect("unix:/nonexistent", { codec = { decode = decode, encode = encode }, timeout = 5 }))
          fails(moonport.connect, "nowhere")
        end,
        pipe = function() fails(moonport.pipe, conn, {}) end,
        publish = function() fails(moonport.publish, "a channel", decode) end,
        subscribe = function() assert(moonport.subscribe("a channel of some length", decode):cancel()) end,
        spawn = function()
          assert(moonport.spawn(function(a, b) moonport.sleep(0) return b end, 1, "b"):wait() == "b")
          local waits = moonport.spawn(function() local x <close> = setmetatable({}, { __close = type }) moonport.sleep(100) end)
          assert(waits:wait(0) == nil and waits:cancel())
          assert(select(2, waits:wait()) == "cancelled")
          local _, problem, traceback = moonport.spawn(error, "x"):wait()
          assert(problem == "x" and #traceback > 10)
        end,
        log = function()
          for _, level in ipairs { "debug", "info", "warn", "error" } do moonport.log[level]("m", { a = 1, b = "c" }) end
        end,
        worker = function() return moonport.worker.id end,
        generation = function() return moonport.generation end,
      },
      environment = {
        require = function() fails(require, "missing.module") end,
        load = function() return load("return 1 + 1")() end,
        loadfile = function() assert(not loadfile("/nonexistent")) end,
        dofile = function() fails(dofile, "/nonexistent") end,
        print = function() print("") end,
        ctx = function() conn.ctx = {} conn.ctx.name = "x" return conn.peer, conn.address, conn.id, tostring(conn) end,
        wrap = function() for n in coroutine.wrap(function() moonport.sleep(0) coroutine.yield(1) end) do assert(n == 1) end end,
        resume = function()
          local co = coroutine.create(function() moonport.sleep(0) return 1 end)
          local ok, value = coroutine.resume(co)
          if not ok then error(value, 0) end
          local ok, message = coroutine.resume(co)
          assert(not ok and message == "cannot resume dead coroutine")
        end,
        receive_scripted = function()
          conn:set_codec { decode = decode, encode = encode }
          assert(conn:receive() == "in\\n")
        end,
      },
    }

    local function look()
      missing = {}
      local tables = { conn = methods, native = native, moonport = moonport }
      for group, functions in pairs(tables) do
        for name, value in pairs(functions) do
          -- The table of methods marks conn.id and the like by light userdata; they have cases of their own.
          if type(value) ~= "userdata" and not cases[group][name] then missing[#missing + 1] = group .. "." .. name end
        end
        for name in pairs(cases[group]) do
          if functions[name] == nil then missing[#missing + 1] = group .. "." .. name .. " (not there)" end
        end
      end
    end

    local handlers = {}
    function handlers.on_open(opened)
      conn = opened
      -- Left there by the test: scripts do not get at either.
      native, methods = string.native, string.methods
      look()
    end
    function handlers.on_close() end
    function handlers.on_error(conn, message) end
    function handlers.on_console(name)
      done = false
      local group, case = name:match("^(.-)%.(.*)$")
      cases[group][case]()
      done = true
    end
    function handlers.on_drain() return done end
    function handlers.on_stop()
      done = false
      for _, room in ipairs(conn:rooms() or {}) do conn:leave(room) end
      conn:set_codec("raw")
      conn:resume()
      conn.ctx = {}
    end
    function handlers.on_start()
      local all = {}
      for group, list in pairs(cases) do for name in pairs(list) do all[#all + 1] = group .. "." .. name end end
      table.sort(all)
      return table.concat(all, " "), missing and table.concat(missing, " ") or "no connection", native and 1 or 0
    end
    return handlers
    """
}
