-- Drops what has been in the recent hashes for more than one window; the younger hash becomes the older one.
-- ARGV    none
-- Answers ok rotated (0 | 1)
-- Writes  meta, recent
function operations.rotate()
  if now - recent_since < recent_window_ms then return 'ok 0' end
  write_all()
  redis.call('UNLINK', OLDER)
  plant_sentinel(OLDER == RECENT_A and 8 or 9)
  RECENT, OLDER = OLDER, RECENT
  recent_since = now
  redis.call('HSET', META, 'recent', RECENT == RECENT_A and 'a' or 'b', 'recent_since', format('%.0f', now))
  return 'ok 1'
end
