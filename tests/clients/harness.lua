-- Runs the scripts of this folder: an error must end Neovim with a status that the caller sees.
return function(main)
  local ok, message = xpcall(main, debug.traceback)
  if not ok then
    io.stderr:write(message .. '\n')
    vim.cmd('cquit 1')
  end
  vim.cmd('qall!')
end
