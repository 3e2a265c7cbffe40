-- Buckets: rate limits of requests and usage, each one number, tat, in microseconds: when all that was let through has drained.
--
-- Something of cost c moves tat on by c * per / limit. It is let through while tat is then at most the burst's worth of time
-- ahead of now, and from a full bucket (tat is not ahead) whatever its size. `most` is the largest step since it was full: no
-- tat is further ahead than that or the burst, but of a clock that was set back. How much had drained nobody knows then: one
-- is let through, which leaves nothing, and the bucket drains again by the new time, instead of refusing until the old one.
-- A limit of `concurrent` counts the open holds of the level.

levels.buckets = {}

function levels.buckets.step(l, cost) return math.floor(cost * l.per * 1000 / l.limit) end

-- A burst of 0 is the limit's own.
function levels.buckets.tolerance(l)
  return l.burst == 0 and l.per * 1000 or math.ceil(l.burst * l.per * 1000 / l.limit)
end

-- Where the bucket stands before a step: tat, or now where it is full.
function levels.buckets.stand(l, step)
  local now_us, tat, tolerance = now * 1000, l.tat or 0, levels.buckets.tolerance(l)
  if tat - now_us > math.max(tolerance, l.most or 0) then tat = now_us + tolerance - step end
  return math.max(tat, now_us), now_us
end

-- What something costs of a limit; 0 of what it does not count.
function levels.buckets.cost(l, ask)
  return l.kind == 'requests' and ask.requests or 0
end

function levels.buckets.judge(level, l, ask, broken)
  if l.mode ~= 'e' then return end
  if l.kind == 'concurrent' then
    if (ask.holds or 0) == 0 or level.holds + ask.holds <= l.limit then return end
    broken[#broken + 1] = {
      class = 3, room = l.limit - level.holds, rule = 'concurrency', of = level.user, id = l.id, unit = 'r', limit = l.limit,
      used = level.holds,
    }
    return
  end
  local cost = levels.buckets.cost(l, ask)
  local step = levels.buckets.step(l, cost)
  local stand, now_us = levels.buckets.stand(l, step)
  local missing = stand + step - now_us - levels.buckets.tolerance(l)
  if cost == 0 or missing <= 0 or stand == now_us then return end
  broken[#broken + 1] = {
    class = 3, room = 0, rule = 'rate_limit', of = level.user, id = l.id, unit = 'r', limit = l.limit,
    retry_ms = math.ceil(missing / 1000), per = l.per,
  }
end

-- What a limit lets through yet, and in how many milliseconds all of it will be there again.
function levels.buckets.left(level, l, ask)
  if l.kind == 'concurrent' then return math.max(0, l.limit - level.holds - (ask.holds or 0)), 0 end
  local stand, now_us = levels.buckets.stand(l, 0)
  local room = levels.buckets.tolerance(l) - (stand - now_us)
  return math.max(0, math.floor(room * l.limit / (l.per * 1000))), math.ceil((stand - now_us) / 1000)
end

-- Something was let through. Its entry, which the level counts, writes it; its answer tells of the limit that leaves least:
-- " %id,kind,limit,per_ms,left,reset_ms" (apply.lua).
function levels.buckets.take(user, ask)
  local least
  for _, level in ipairs(levels.of(user)) do
    for _, l in ipairs(level.limits) do
      local cost = levels.buckets.cost(l, ask)
      if cost > 0 then
        local step = levels.buckets.step(l, cost)
        local stand, now_us = levels.buckets.stand(l, step)
        l.tat, l.most = stand + step, math.max(stand == now_us and 0 or l.most or 0, step)
      end
      local left, reset = levels.buckets.left(level, l, ask)
      local counts = l.mode == 'e' and (cost > 0 or l.kind == 'concurrent' and ask.holds)
      if counts and (not least or left < least) then
        least = left
        levels.behind = format(' %%%s,%s,%d,%d,%d,%d', l.id, l.kind, l.limit, l.per, left, reset)
      end
    end
  end
end
