-- Takes note of how far the store has the outbox, and trims what it has had for long enough.
-- ARGV    seq (that the store has), trim_to_seq (up to which entries may go), removed_max
-- Answers ok backlog (entries that the store does not have) removed was_full (0 | 1: spending was refused until now)
-- Writes  meta, outbox
function operations.flushed(i)
  write_all()
  local was_full = outbox_full() -- by the backlog before: while the store was away, nobody took note that it was full
  flushed = math.max(flushed, math.min(ARGV[i] + 0, seq))
  local backlog = seq - flushed
  full = outbox_max > 0 and (backlog >= outbox_max or was_full and backlog > outbox_max * 0.9)
  redis.call('HSET', META, 'flushed', format('%d', flushed), 'full', full and '1' or '0')
  local removed = 0
  local trim_to = math.min(ARGV[i + 1] + 0, flushed)
  if trim_to > 0 then
    removed = redis.call('XTRIM', OUTBOX, 'MINID', '~', format('%d-0', trim_to), 'LIMIT', ARGV[i + 2])
  end
  return format('ok %d %d %d', backlog, removed, was_full and 1 or 0)
end
