-- Counting: what a transaction moves at each level that its account is under. The entry that books it tells the values after it
-- (levels.told, called by state/outbox.lua), and the terms of a level where they changed.

function levels.touch(level)
  if not level.is_touched then
    level.is_touched = true
    levels.touched[#levels.touched + 1] = level
  end
end

-- A budget begins with nothing used, in the window that lasts now.
function levels.begin(level, b)
  b.from, b.base, b.alerts = seq + 1, level[TOTALS[b.unit]], levels.unmarked(b.alerts)
  b.starts, b.ends = levels.window(level, b, now)
end

-- Begins the windows that have begun by now. Where the clock has gone back, the window that is under way goes on, from then.
function levels.roll(level)
  for _, b in ipairs(level.budgets) do
    if now >= b.ends then
      b.base, b.from, b.alerts = level[TOTALS[b.unit]], seq, levels.unmarked(b.alerts)
      b.starts, b.ends = levels.window(level, b, now)
      level.has_new_terms = true
    elseif now < b.starts then
      b.starts, level.has_new_terms = now, true
    end
  end
end

-- Adds to what a level counts of one unit; of the budgets of which it is not in the window, to the base as well.
local function add(level, unit, amount, time, of_seq)
  level[TOTALS[unit]] = level[TOTALS[unit]] + amount
  for _, b in ipairs(level.budgets) do
    if b.unit == unit and (time < b.starts or of_seq and of_seq <= b.from) then
      b.base, level.has_new_terms = b.base + amount, true
    elseif b.unit == unit and amount > 0 then
      levels.alert(level, b)
    end
  end
end

local function each_counting(user, visit)
  for _, level in ipairs(levels.of(user)) do
    if level.since > 0 then
      levels.roll(level)
      levels.touch(level)
      visit(level)
    end
  end
end

-- A charge that is booked at that time.
function levels.charge(user, amount, time, requests)
  each_counting(user, function(level)
    add(level, 'c', amount, time)
    if level.breaker and amount > 0 then levels.breakers.spend(level, amount) end
    if requests then add(level, 'r', requests, time) end
  end)
end

-- Part of a charge of that time and seq is given back. Charges that are older than what the level counts were never counted.
function levels.refund(user, amount, time, of_seq)
  each_counting(user, function(level)
    if of_seq > level.since then add(level, 'c', -amount, time, of_seq) end
  end)
end

-- Whether a level counts a hold: it did when it was made.
function levels.counts(level, hold)
  return level.since > 0 and (hold.seq or 0) > level.since
end

-- A hold, or a part of one, begins; it remembers the seq of its reserve where a level counts it (state/hold.lua).
function levels.hold(user, hold)
  each_counting(user, function(level)
    hold.seq = seq + 1
    level.reserved = level.reserved + hold.amount
    if hold.path then return end
    level.holds = level.holds + 1
    add(level, 'r', 1, now)
  end)
end

function levels.hold_more(user, hold, amount)
  each_counting(user, function(level)
    if levels.counts(level, hold) then level.reserved = level.reserved + amount end
  end)
end

-- A hold ends. Where nothing comes of it, its request is given back.
function levels.unhold(user, hold, gives_back)
  each_counting(user, function(level)
    if not levels.counts(level, hold) then return end
    level.reserved = level.reserved - hold.amount
    if hold.path then return end
    level.holds = level.holds - 1
    if gives_back then add(level, 'r', -1, hold.created, hold.seq) end
  end)
end
