-- Reads the partition's clock, or freezes and moves it (test clock; the caller checks that one is allowed).
-- ARGV    what ("" reads, "set" to a time, "advance" by a span), milliseconds
-- Answers ok now_ms frozen (0 | 1) | backwards now_ms
-- Writes  meta
function operations.clock(i)
  local what, ms = ARGV[i], ARGV[i + 1]
  if what ~= '' then
    local to = what == 'advance' and now + ms or ms + 0
    if to < now then return format('0 backwards %d', now) end
    write_all() -- what was decided so far was decided at the old time
    redis.call('HSET', META, 'clock_ms', format('%d', to))
    now, frozen_ms, booked = to, true, true
    accounts, account_texts, holds, hold_texts = {}, {}, {}, {}
  end
  return format('ok %d %d', now, frozen_ms and 1 or 0)
end
