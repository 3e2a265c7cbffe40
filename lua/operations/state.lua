-- Changes the state of the partition: closed, nothing is decided on it until a rebuild opens it again.
-- ARGV    state (lost: its history is not the one that the store has; rebuilding: no change, what follows in the batch
--         belongs to a rebuild; clear: drops everything but meta, for a rebuild; open: the rebuild is done),
--         epoch (0 = any; lost does nothing at another epoch, a rebuild fails: another one has begun),
--         why (it is lost; "" = not told)
-- Answers ok
-- Writes  meta; clear: all keys
function operations.state(i)
  local to, of, why = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local same = of == '0' or of == epoch
  if to == 'lost' and not (same and fields[2] == 'open') then return 'ok' end -- the first reason stays
  if of ~= '0' and to ~= 'lost' and not (same and fields[2] == 'rebuilding') then
    error('epoch ' .. of .. ' of the partition is not being rebuilt, it is ' .. fields[2] .. ' at epoch ' .. epoch)
  end
  write_all()
  if to == 'clear' then
    redis.call('UNLINK', ACCOUNTS, GRANTS, ORDER, HOLDS, AGENDA, DUE, RECENT_A, RECENT_B, OUTBOX, PROFILES, RATES, api_keys.ALL,
      paths.RULES, paths.COUNTERS, paths.CALENDAR)
    redis.call('HDEL', META, 'rules')
    plant_sentinels()
  elseif to ~= 'rebuilding' then
    redis.call('HSET', META, 'state', to)
    if why ~= '' then redis.call('HSET', META, 'why', why) end
    if to == 'open' then redis.call('HDEL', META, 'why', 'acknowledged') end
    fields[2] = to
  end
  return 'ok'
end
