-- Drops what has been in the recent hashes for more than one window; the younger hash becomes the older one. Where there is
-- a store, that waits until the store has all that is dropped: what both had forgotten would be done again.
-- ARGV    waits (0 | 1: for the store)
-- Answers ok rotated (0 | 1)
-- Writes  meta, recent
function operations.rotate(i)
  if now - recent_since < recent_window_ms then return 'ok 0' end
  local recent_seq = redis.call('HGET', META, 'recent_seq') or '0' -- of the last transaction that the older hash knows
  if ARGV[i] == '1' and flushed < recent_seq + 0 then return 'ok 0' end
  write_all()
  redis.call('UNLINK', OLDER)
  plant_sentinel(OLDER == RECENT_A and 8 or 9)
  RECENT, OLDER = OLDER, RECENT
  recent_since = now
  redis.call('HSET', META, 'recent', RECENT == RECENT_A and 'a' or 'b', 'recent_since', format('%d', now), 'recent_seq',
    format('%d', seq))
  return 'ok 1'
end
