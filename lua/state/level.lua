-- Levels with rules: what they keep, and what transactions below them move.
--
-- RULES     "since flags", then a word for each rule; since: the seq that gave it its first (0: it counts nothing); flags: "-",
--           or s where it is suspended, p where it is a pool, a where it stays apart from the pools above it
--           b,id,limit,window,zone,mode,unit,scope,alerts,source,from,base,starts,ends   a budget
--           l,id,kind,limit,per_ms,burst,dimension,scope,mode,source,from                a rate limit
--           v,limit,per_ms,action,pause_ms,till                                          its breaker (state/breaker.lua)
-- COUNTERS  "charged reserved holds requests", then "id=tat:most" for each bucket that is not full (state/bucket.lua)
--
-- charged is what the path and all below it were charged since, less refunds; so a charge moves one number however many
-- budgets there are, and what a budget has used is charged less its base. A window that ends sets the base anew; what is booked
-- into a window that has ended moves both. `from` is the last seq before the budget's window began (or it was set): a charge is
-- of the window when it is younger, by seq, and not older than its start, by its time.

local rule_count = (fields[11] or '0') + 0
levels = {
  known = {}, of_path = {}, touched = {}, changed = {}, calendars = {}, count = rule_count, stored_count = rule_count,
}

local TOTALS = { c = 'charged', r = 'requests' } -- what a budget counts, by its unit

local BUDGET = '^b,([^,]*),(%d+),([^,]*),([^,]*),(.),(.),([^,]*),([^,]*),([^,]*),(%d+),(%-?%d+),(%d+),(%d+)$'
local LIMIT = '^l,([^,]*),([^,]*),(%d+),(%d+),(%d+),([^,]*),([^,]*),(.),([^,]*),(%d+)$'

function levels.parse_rule(word)
  local id, limit, window, zone, mode, unit, scope, alerts, source, from, base, starts, ends = match(word, BUDGET)
  if id then
    return {
      id = id, limit = limit + 0, window = window, zone = zone, mode = mode, unit = unit, scope = scope, alerts = alerts,
      source = source, from = from + 0, base = base + 0, starts = starts + 0, ends = ends + 0,
    }, 'budgets'
  end
  local name, kind, most, per, burst, dimension, tags, how, whose, since = match(word, LIMIT)
  return {
    id = name, kind = kind, limit = most + 0, per = per + 0, burst = burst + 0, dimension = dimension, scope = tags, mode = how,
    source = whose, from = since + 0,
  }, 'limits'
end

function levels.pack_budget(b)
  return format('b,%s,%d,%s,%s,%s,%s,%s,%s,%s,%d,%d,%d,%d', b.id, b.limit, b.window, b.zone, b.mode, b.unit, b.scope, b.alerts,
    b.source, b.from, b.base, b.starts, b.ends)
end

function levels.pack_limit(l)
  return format('l,%s,%s,%d,%d,%d,%s,%s,%s,%s,%d', l.id, l.kind, l.limit, l.per, l.burst, l.dimension, l.scope, l.mode, l.source,
    l.from)
end

function levels.parse(user, terms, counters)
  local level = {
    user = user, since = 0, charged = 0, reserved = 0, holds = 0, requests = 0, budgets = {}, limits = {}, suspended = false,
    is_pool = false, is_apart = false,
  }
  if terms then
    local since, flags, rules = match(terms, '^(%d+) (%S+)(.*)$')
    level.since, level.suspended = since + 0, string.find(flags, 's', 1, true) ~= nil
    level.is_pool, level.is_apart = string.find(flags, 'p', 1, true) ~= nil, string.find(flags, 'a', 1, true) ~= nil
    for word in gmatch(rules, ' ([bl]%S+)') do
      local rule, list = levels.parse_rule(word)
      level[list][#level[list] + 1] = rule
    end
    level.breaker = levels.breakers.read(rules, counters)
  end
  if counters then
    local charged, reserved, holds, requests, rest = match(counters, '^(%d+) (%d+) (%d+) (%d+)(.*)$')
    level.charged, level.reserved, level.holds, level.requests = charged + 0, reserved + 0, holds + 0, requests + 0
    for n = 1, #level.limits do
      local l = level.limits[n]
      for id, tat, most in gmatch(rest, ' (%S-)=(%d+):(%d+)') do
        if id == l.id then l.tat, l.most = tat + 0, most + 0 end
      end
    end
  end
  return level
end

function levels.terms_of(level)
  local flags = (level.suspended and 's' or '') .. (level.is_pool and 'p' or '') .. (level.is_apart and 'a' or '')
  local words = { format('%d %s', level.since, flags == '' and '-' or flags) }
  for _, b in ipairs(level.budgets) do words[#words + 1] = levels.pack_budget(b) end
  for _, l in ipairs(level.limits) do words[#words + 1] = levels.pack_limit(l) end
  words[#words + 1] = levels.breakers.pack(level.breaker)
  return concat(words, ' ')
end

function levels.counters_of(level)
  local words = { format('%d %d %d %d', level.charged, level.reserved, level.holds, level.requests) }
  for _, l in ipairs(level.limits) do
    if l.tat and l.tat > now * 1000 then words[#words + 1] = format('%s=%d:%d', l.id, l.tat, l.most) end
  end
  words[#words + 1] = levels.breakers.counter(level.breaker)
  return concat(words, ' ')
end

-- The level of that name, or false where it has no rules.
function levels.at(name)
  local level = levels.known[name]
  if level == nil then
    if paths.terms[name] == nil then paths.read({ name }) end
    level = paths.terms[name] and levels.parse(name, paths.terms[name], paths.counters[name])
    levels.known[name] = level
  end
  return level
end

-- The levels with rules that a path is under, itself first.
function levels.of(user)
  local found = levels.of_path[user]
  if found then return found end
  found = {}
  local names = levels.count > 0 and paths.levels_of(user) or {}
  for n = #names, 1, -1 do
    local level = levels.at(names[n])
    if level then found[#found + 1] = level end
  end
  levels.of_path[user] = found
  return found
end
