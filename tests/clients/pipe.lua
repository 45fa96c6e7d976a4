-- An asynchronous client in Lua: vim.loop for the socket, vim.mpack for the messages. Keeps binary data,
-- which rpcrequest does not, and sees events as they come.
local here = vim.fn.fnamemodify(debug.getinfo(1, 'S').source:sub(2), ':h')

dofile(here .. '/harness.lua')(function()
  local session = vim.mpack.Session({ unpack = vim.mpack.Unpacker() })
  local pipe = vim.loop.new_pipe(false)
  local events, failure = {}, nil

  local function on_read(err, data)
    if err or not data then
      failure = err or 'the daemon ended the connection'
      return
    end
    local position = 1
    while position <= #data do
      local kind, callback, method_or_error, params_or_result
      kind, callback, method_or_error, params_or_result, position = session:receive(data, position)
      if kind == 'notification' and method_or_error == 'job.event' then
        table.insert(events, params_or_result[1])
      elseif kind == 'response' then
        callback(method_or_error, params_or_result)
      end
    end
  end

  local function request(method, params, callback)
    pipe:write(session:request(callback) .. vim.mpack.encode(method) .. vim.mpack.encode({ params }))
  end

  -- A request that is waited for; libuv and Neovim go on meanwhile.
  local function call(method, params)
    local done, problem, result = false, nil, nil
    request(method, params, function(err, value)
      done, problem, result = true, err, value
    end)
    assert(vim.wait(60000, function() return done or failure end, 1), method .. ' took too long')
    assert(not failure, failure)
    if problem and problem ~= vim.NIL then
      error(problem[2])
    end
    return result
  end

  check_socket_folder(assert(vim.env.LATENTD_SOCKET))
  local connected = nil
  pipe:connect(assert(vim.env.LATENTD_SOCKET), function(err) connected = err or true end)
  assert(vim.wait(10000, function() return connected end, 1), 'no connection')
  assert(connected == true, connected)
  pipe:read_start(on_read)

  call('ping', vim.empty_dict())
  local params = vim.json.decode(vim.env.REQUEST)
  local job = call('jobs.submit', { method = 'txt2img', params = params }).job
  call('jobs.subscribe', { job = job, since = 0 })
  local result = call('jobs.wait', { job = job })

  local last = 0
  for _, event in ipairs(events) do
    assert(event.job == job and event.seq > last, vim.inspect(event))
    last = event.seq
  end
  assert(#events > 0, 'no events')

  local file = assert(io.open(vim.env.OUTPUT, 'wb'))
  file:write(result.images[1].png)
  file:close()
  pipe:close()
end)
