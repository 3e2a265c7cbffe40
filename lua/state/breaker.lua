-- The breaker of a level: what it, and all below it, are charged faster than `limit` per `per_ms` trips it.
--
-- It is a bucket of `limit` credits that drains evenly (as state/bucket.lua has them: tat, in microseconds, here never more than
-- twice per_ms ahead, so that one huge charge closes nothing for years). A charge that fills it beyond its brim trips it, in its
-- entry, with an alert; nothing is ever refused or cut for what was served. While it is tripped, until `till`:
--   w warns: nothing more; it may trip again when all has drained
--   r refuses new reserves and deducts (429) until all has drained; what is charged meanwhile adds to that
--   s suspends (403) for pause_ms since it tripped, whatever is charged meanwhile
-- Then it is armed again by itself. Setting it anew, or another one, arms it at once, and so does a clock that was set back by
-- more than it can be ahead: else it stayed tripped until the old time. A suspension of an operator is none of its business. In
-- the terms: v,limit,per_ms,action,pause_ms,till; in the counters "!=tat:0".

levels.breakers = {}

local function parsed(word)
  local limit, per, action, pause, till = match(word, '^v,(%d+),(%d+),(.),(%d+),(%d+)$')
  return limit and { limit = limit + 0, per = per + 0, action = action, pause = pause + 0, till = till + 0 }
end

-- What a level keeps of it, if it has one.
function levels.breakers.read(terms, counters)
  local v = parsed(match(terms, ' (v,%S+)') or '')
  if v then v.tat = (match(counters or '', ' !=(%d+):') or 0) + 0 end
  return v
end

-- Its words, nil for none, in the terms and in the counters.
function levels.breakers.pack(v)
  return v and format('v,%d,%d,%s,%d,%d', v.limit, v.per, v.action, v.pause, v.till)
end

function levels.breakers.counter(v)
  return v and (v.tat or 0) > now * 1000 and format('!=%d:0', v.tat) or nil
end

-- What `configure` says of it: "limit,per_ms,action,pause_ms", "-" for none, "" where it stays.
function levels.breakers.edited(text, old)
  if text == '' then return old end
  return text ~= '-' and parsed('v,' .. text .. ',0') or nil
end

function levels.breakers.is_tripped(v)
  return v ~= nil and v.till > now and v.till - now <= (v.action == 's' and v.pause or 2 * v.per)
end

function levels.breakers.suspends(level)
  return levels.breakers.is_tripped(level.breaker) and level.breaker.action == 's'
end

-- How much of it is full, in microseconds and in units; nothing of one that is further ahead than it can be.
local function filled(v)
  local ahead_us = (v.tat or 0) - now * 1000
  if ahead_us > 2 * v.per * 1000 then ahead_us = 0 end
  return math.max(0, ahead_us), math.max(0, math.floor(ahead_us * v.limit / (v.per * 1000)))
end

-- A charge is booked.
function levels.breakers.spend(level, amount)
  local v = level.breaker
  local ahead_us = filled(v)
  local step_us = math.min(amount * v.per * 1000 / v.limit, 2 * v.per * 1000)
  ahead_us = math.min(math.floor(ahead_us + step_us), 2 * v.per * 1000)
  v.tat = now * 1000 + ahead_us
  local was_tripped = levels.breakers.is_tripped(v)
  if not was_tripped and ahead_us <= v.per * 1000 then return end
  local till = now + math.ceil(ahead_us / 1000)
  if v.action == 's' then till = was_tripped and v.till or now + v.pause end
  if not was_tripped or till > v.till then v.till, level.has_new_terms = till, true end
  if was_tripped then return end
  local _, used = filled(v)
  levels.alerts[#levels.alerts + 1] = format('["velocity_tripped","%s","%s","c",1000000,%d,%d,"%d",%d]', level.user, v.action,
    used, v.limit, v.per, v.till)
end

-- What is new is refused while it is tripped.
function levels.breakers.judge(level, ask, broken)
  local v = level.breaker
  if not levels.breakers.is_tripped(v) or v.action == 'w' or not (ask.is_new or (ask.requests or 0) > 0) then return end
  local _, used = filled(v)
  broken[#broken + 1] = {
    class = v.action == 's' and 1 or 3, room = 0, rule = 'velocity', of = level.user, unit = 'c', limit = v.limit, used = used,
    resets = v.till, retry_ms = v.till - now, per = v.per,
  }
end
