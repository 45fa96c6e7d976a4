-- Neovim's own RPC channel: rpcrequest and rpcnotify on the daemon's socket.
local here = vim.fn.fnamemodify(debug.getinfo(1, 'S').source:sub(2), ':h')

dofile(here .. '/harness.lua')(function()
  check_socket_folder(vim.env.LATENTD_SOCKET)
  local channel = vim.fn.sockconnect('pipe', vim.env.LATENTD_SOCKET, { rpc = true })
  assert(channel > 0, 'no connection')
  local function call(method, params)
    return vim.rpcrequest(channel, method, params)
  end

  -- An empty Lua table arrives as an array, no argument as no params; both mean "no fields".
  vim.rpcrequest(channel, 'ping')
  call('ping', {})
  call('ping', vim.empty_dict())
  -- Notifications that the daemon does not know are none of its business.
  vim.rpcnotify(channel, 'no_such_notification', 1, 2, 3)

  assert(call('api_info', {}).methods, 'api_info has no methods')

  -- An error reaches Lua with its text, and the channel goes on.
  local ok, message = pcall(call, 'txt2img', { prompt = 'x', stepz = 3 })
  assert(not ok and message:find('E_INVALID_PARAMS') and message:find('steps'), message)

  local request = vim.json.decode(vim.env.REQUEST)
  request.output = { format = 'file', dir = vim.env.OUTPUT_DIR }
  -- Neovim does not know `job.event` and answers each with a notification of its own, which must not disturb.
  local unheard = call('jobs.submit', { method = 'txt2img', params = request }).job
  call('jobs.subscribe', { job = unheard, since = 0 })
  call('jobs.wait', { job = unheard })

  -- Notifications that Neovim does know: its own API, with the code that takes the event.
  seen = {}
  call('initialize', { events = 'nvim_exec_lua', event_args = { 'table.insert(seen, (...))' } })
  local job = call('jobs.submit', { method = 'txt2img', params = request }).job
  assert(vim.wait(60000, function()
    return #seen > 0 and seen[#seen].type == 'finished'
  end, 10), vim.inspect(seen))
  assert(seen[1].job == job and seen[1].type == 'queued', vim.inspect(seen[1]))
  local image = call('jobs.wait', { job = job }).images[1]
  call('ping', {})

  assert(image.width == request.width and image.height == request.height, vim.inspect(image))
  assert(image.infotext:find('Seed: ' .. request.seed, 1, true), image.infotext)
  local file = assert(io.open(image.path, 'rb'))
  assert(file:read(8) == '\137PNG\r\n\26\n', image.path .. ' is not a PNG')
  file:close()
  print('path ' .. image.path)
end)
