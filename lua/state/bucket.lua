-- Buckets: rate limits of requests and usage, each one number, tat, in microseconds: when all that was let through has drained.
--
-- Something of cost c moves tat on by c * per / limit. It is let through while tat is then at most the burst's worth of time
-- ahead of now, and from a full bucket (tat is not ahead) whatever its size. `most` is the largest step since it was full, which
-- bounds how far ahead tat may be of a clock that was set back. A limit of `concurrent` counts the open holds of the level.

levels.buckets = {}

function levels.buckets.step(l, cost) return math.floor(cost * l.per * 1000 / l.limit) end

function levels.buckets.tolerance(l) return math.ceil(l.burst * l.per * 1000 / l.limit) end

-- Where the bucket stands: tat, or now where it is full.
function levels.buckets.stand(l)
  local now_us = now * 1000
  local most_ahead = now_us + levels.buckets.tolerance(l) + (l.most or 0)
  return math.max(math.min(l.tat or 0, most_ahead), now_us), now_us
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
  local cost, stand, now_us = levels.buckets.cost(l, ask), levels.buckets.stand(l)
  local missing = stand + levels.buckets.step(l, cost) - now_us - levels.buckets.tolerance(l)
  if cost == 0 or missing <= 0 or stand == now_us then return end
  broken[#broken + 1] = {
    class = 3, room = 0, rule = 'rate_limit', of = level.user, id = l.id, unit = 'r', limit = l.limit,
    retry_ms = math.ceil(missing / 1000),
  }
end

-- Something was let through. Its entry, which the level counts, writes it.
function levels.buckets.take(user, ask)
  for _, level in ipairs(levels.of(user)) do
    for _, l in ipairs(level.limits) do
      local cost, stand, now_us = levels.buckets.cost(l, ask), levels.buckets.stand(l)
      if cost > 0 then
        local step = levels.buckets.step(l, cost)
        l.tat, l.most = stand + step, math.max(stand == now_us and 0 or l.most or 0, step)
      end
    end
  end
end
