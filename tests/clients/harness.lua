-- Runs the scripts of this folder: an error must end Neovim with a status that the caller sees.
-- Lua sees no peer's name: the folder must be one that only this user can put a socket into.
function check_socket_folder(socket)
  local folder = vim.fn.fnamemodify(socket, ':h')
  local found = assert(vim.loop.fs_stat(folder), folder .. ' is not there: no daemon runs')
  local others_may_write = require('bit').band(found.mode, 18) ~= 0
  assert(found.uid == vim.loop.getuid() and not others_may_write, folder .. ' is not only yours: not connected')
end

return function(main)
  local ok, message = xpcall(main, debug.traceback)
  if not ok then
    io.stderr:write(message .. '\n')
    vim.cmd('cquit 1')
  end
  vim.cmd('qall!')
end
