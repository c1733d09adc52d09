-- Echoes lines, one at a time, as a service of HAProxy.
core.register_service("echo", "tcp", function(applet)
  while true do
    local line = applet:getline()
    if line == nil or #line == 0 then return end
    applet:send(line)
  end
end)
