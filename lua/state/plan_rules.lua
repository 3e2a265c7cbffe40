-- What plans say of rules, and when periods of subscriptions end. CALENDAR has, as "p user_id", for each group of plans that an
-- account was told of: "group version budgets limits bounds", with "|" between, by name.
--
-- budgets, limits  changes as state/editing.lua has them, all members said, ";" between; "-" for none
-- bounds           when periods begin, ":" between; the last: when the last that is known ends
--
-- A rule of a plan is one of the account, and `source` the group. Where the account has a rule of that id itself, the plan's
-- waits; of several plans the first by name has it.

levels.plans = { read = {} }

function levels.plans.of(user)
  local found = levels.plans.read[user]
  if found then return found end
  found = {}
  local field = 'p ' .. user
  local text = levels.calendars[field] or redis.call('HGET', paths.CALENDAR, field) or ''
  for group, version, budgets, limits, bounds in gmatch(text, '([^%s|]+) (%d+) (%S+) (%S+) ([^|]+)') do
    found[#found + 1] = { group = group, version = version + 0, budgets = budgets, limits = limits, bounds = bounds }
  end
  levels.plans.read[user] = found
  return found
end

-- Takes over what a plan says, unless what is there is of a later version of the subscription; false then.
function levels.plans.tell(user, said)
  local kept, words = { said }, {}
  for _, one in ipairs(levels.plans.of(user)) do
    if one.group ~= said.group then
      kept[#kept + 1] = one
    elseif one.version >= said.version then
      return false
    end
  end
  table.sort(kept, function(x, y) return before(x.group, y.group) end)
  for n, one in ipairs(kept) do
    words[n] = format('%s %d %s %s %s', one.group, one.version, one.budgets, one.limits, one.bounds)
  end
  levels.plans.read[user], levels.calendars['p ' .. user] = kept, concat(words, '|')
  return true
end

-- The period of an account that a moment lies in, by the first plan that it has. Behind the last that is known its length goes
-- on. Nil where nobody told any.
function levels.plans.period(user, moment)
  local said = levels.plans.of(user)[1]
  local starts, length
  for at in gmatch(said and said.bounds or '', '%d+') do
    at = at + 0
    if moment < at then return starts or 0, at end
    length = starts and at - starts
    starts = at
  end
  if not length then return nil end
  starts = starts + math.floor((moment - starts) / length) * length
  return starts, starts + length
end

-- The window of a budget that a moment lies in.
function levels.window(level, b, moment)
  if b.window ~= 'period' then return calendar.window(b.window, b.zone, moment) end
  local starts, ends = levels.plans.period(level.user, moment)
  if not starts then return calendar.window('month', b.zone, moment) end
  return starts, ends
end

-- How many of some rules are the account's own.
function levels.plans.own(list)
  local own = 0
  for _, rule in ipairs(list) do own = own + (rule.source == '-' and 1 or 0) end
  return own
end

-- The rules of a level behind a change of its own, with those of its plans. A rule goes on with what was counted by the one of
-- its id before, as an edit does.
function levels.plans.merged(level, kind, list)
  local merged, taken = {}, {}
  for _, rule in ipairs(list) do
    if rule.source == '-' then merged[#merged + 1], taken[rule.id] = rule, true end
  end
  for _, plan in ipairs(levels.plans.of(level.user)) do
    for id, rest in gmatch(plan[kind], '([^,;]+),([^;]+)') do
      if not taken[id] and #merged < RULES_MAX then
        local old
        for _, rule in ipairs(level[kind]) do old = rule.id == id and rule or old end
        for _, rule in ipairs(list) do old = rule.id == id and rule or old end
        local rule = EDITS[kind](level, id, rest, old)
        if rule then
          rule.source = plan.group
          merged[#merged + 1], taken[id] = rule, true
        end
      end
    end
  end
  return merged
end

-- What a level is by what its plans say now.
function levels.plans.planned(user)
  local level = levels.at(user) or levels.parse(user)
  levels.roll(level)
  return {
    level = level, budgets = levels.plans.merged(level, 'budgets', level.budgets),
    limits = levels.plans.merged(level, 'limits', level.limits), suspended = level.suspended, breaker = level.breaker,
    is_pool = level.is_pool, is_apart = level.is_apart,
  }
end

-- Whether the rules that a level is to have are others than it has. Budgets by the period begin anew where that ends elsewhere.
function levels.plans.differs(plan)
  local level = plan.level
  for _, b in ipairs(plan.budgets) do
    if b.window == 'period' then
      local _, ends = levels.window(level, b, now)
      if ends ~= b.ends then levels.begin(level, b) end
    end
  end
  return levels.listed(plan) ~= levels.listed(level)
end
