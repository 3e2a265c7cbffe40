-- Alerts of budgets: each part of the limit that alert_at names, and the limit itself, are told once a window, by the entry whose
-- charge reaches them.
--
-- The text of a budget's alerts is "-", or millionths of its limit with "+" between; "!" behind one that was told, and an "x" at
-- the end where it was told that the limit is reached. A window that begins, or a reset, takes these marks away.

levels.alerts = {} -- of the entry that is to come: JSON arrays (meter/ledger/entry_rows.py)

-- Millionths of a limit, rounded up, exactly: the limit is split, as in state/cost.lua.
local function part_of(limit, millionths)
  local rest = limit % 1000000
  return (limit - rest) / 1000000 * millionths + math.ceil(rest * millionths / 1000000)
end

-- What was charged now may have reached something.
function levels.alert(level, b)
  local used = level[TOTALS[b.unit]] - b.base
  local list, reached = match(b.alerts, '^([^x]*)(x?)$')
  local function tell(kind, at)
    levels.alerts[#levels.alerts + 1] = format('["%s","%s","%s","%s",%d,%d,%d,"%s",%d]', kind, level.user, b.id, b.unit, at, used,
      b.limit, b.window, b.ends % NEVER)
    level.has_new_terms = true
  end
  if list ~= '-' then
    list = gsub(list, '(%d+)(!?)', function(at, told)
      if told == '!' or used < part_of(b.limit, at + 0) then return nil end
      tell('budget_warning', at + 0)
      return at .. '!'
    end)
  end
  if reached == '' and used >= b.limit then
    tell('budget_reached', 1000000)
    reached = 'x'
  end
  b.alerts = list .. reached
end

-- The alerts of a budget without marks.
function levels.unmarked(alerts)
  return (gsub(alerts, '[!x]', ''))
end
