-- How levels get into the entries that move them, into Redis, and back from the store.

-- What was moved since the last entry, as a member of this one: [[level, charged, reserved, holds, requests, terms], ...], the
-- terms only where they changed, "" where it has no rules any more.
function levels.told()
  local parts = {}
  for n, level in ipairs(levels.touched) do
    local terms = ''
    if level.has_new_terms then
      terms = ',"' .. (level.is_gone and '' or levels.terms_of(level)) .. '"'
      level.has_new_terms, level.is_rewritten = false, true
    end
    parts[n] = format('["%s",%d,%d,%d,%d%s]', level.user, level.charged, level.reserved, level.holds, level.requests, terms)
    level.is_touched, levels.changed[level.user] = false, level
  end
  levels.touched = {}
  local told = '"counters":[' .. concat(parts, ',') .. ']'
  if levels.alerts[1] then told = told .. ',"budget_alerts":[' .. concat(levels.alerts, ',') .. ']' end
  levels.alerts = {}
  return told
end

-- Puts the levels that entries told of into Redis.
function levels.write()
  local terms, counters = {}, {}
  for user, level in pairs(levels.changed) do
    if level.is_gone then
      terms[user], counters[user] = false, false
    else
      counters[user] = levels.counters_of(level)
      if level.is_rewritten then terms[user] = levels.terms_of(level) end
    end
    level.is_rewritten = false
    paths.terms[user], paths.counters[user] = nil, nil
  end
  write_fields(paths.RULES, terms)
  write_fields(paths.COUNTERS, counters)
  write_fields(paths.CALENDAR, levels.calendars)
  if levels.count ~= levels.stored_count then
    redis.call('HSET', META, 'rules', format('%d', levels.count))
    levels.stored_count = levels.count
  end
  levels.changed, levels.calendars = {}, {}
end

-- The rules of a level as answers list them.
function levels.listed(level)
  local words = { '' }
  for _, b in ipairs(level.budgets) do words[#words + 1] = levels.pack_budget(b) end
  for _, l in ipairs(level.limits) do words[#words + 1] = levels.pack_limit(l) end
  words[#words + 1] = levels.breakers.pack(level.breaker)
  return concat(words, ';')
end

-- Puts a level back as the store has it.
function levels.restore(user, terms, counters)
  local level = levels.parse(user, terms, counters)
  if not levels.at(user) then levels.count = levels.count + 1 end
  level.is_rewritten = true
  levels.known[user], levels.changed[user], levels.of_path = level, level, {}
end

-- An account that is gone has no rules.
function levels.drop(user)
  local level = levels.at(user)
  if not level then return end
  level.is_gone, level.since, level.budgets, level.limits, level.breaker = true, 0, {}, {}, nil
  level.suspended, level.is_pool, level.is_apart = false, false, false
  levels.count, levels.changed[user] = levels.count - 1, level
end
