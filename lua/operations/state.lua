-- Changes the state of the partition: closed, nothing is decided on it until a rebuild opens it again.
-- ARGV    state (lost: its history is not the one that the store has; open: the rebuild is done)
-- Answers ok
-- Writes  meta
function operations.state(i)
  write_all()
  redis.call('HSET', META, 'state', ARGV[i])
  return 'ok'
end
