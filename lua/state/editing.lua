-- Editing: the rules of a level as `configure` changes them. Rules are merged by their ids, and a rule by its members.
--
-- A change is a word: "id,-" takes the rule away, "id,!" begins the budget anew, else the rule's members, "~" for one that stays
-- as it is (of a new rule: has its default):
--   id,limit,window,zone,mode,unit,scope,alerts        a budget (limit: units, then ":" and what it is of requests, if whole)
--   id,kind,limit,per_ms,burst,dimension,scope,mode    a rate limit (burst "*": its limit)

local RULES_MAX = 8 -- of each kind
local function pick(new, old, default) return new ~= '~' and new or old or default end

-- The limit of a budget of that unit.
local function limit_of(text, unit, was)
  if text == '~' then return unit == was.unit and was.limit or nil end
  local units, count = match(text, '^(%d+):?(%d*)$')
  if unit == 'r' then units = count ~= '' and count end
  return units and units + 0
end

-- A budget of the same window, zone, unit and scope goes on with what it has used.
local function edit_budget(level, id, rest, old)
  local limit, window, zone, mode, unit, scope, alerts = match(rest, '^(.-),(.-),(.-),(.-),(.-),(.-),(.-)$')
  local was = old or {}
  unit, window = pick(unit, was.unit, 'c'), pick(window, was.window)
  limit = limit_of(limit, unit, was)
  if not limit or not window then return nil end
  local b = {
    id = id, limit = limit, window = window, zone = pick(zone, was.zone, 'UTC'), mode = pick(mode, was.mode, 'e'),
    unit = unit, scope = pick(scope, was.scope, '-'), alerts = pick(alerts, was.alerts, '-'), source = '-',
  }
  if old and b.window == old.window and b.zone == old.zone and b.unit == old.unit and b.scope == old.scope then
    b.from, b.base, b.starts, b.ends = old.from, old.base, old.starts, old.ends
  else
    levels.begin(level, b)
  end
  return b
end

local function edit_limit(_, id, rest, old)
  local kind, limit, per, burst, dimension, scope, mode = match(rest, '^(.-),(.-),(.-),(.-),(.-),(.-),(.-)$')
  local was = old or {}
  kind, limit = pick(kind, was.kind), pick(limit, was.limit)
  if not kind or not limit then return nil end
  local is_same = old and old.kind == kind
  return {
    id = id, kind = kind, limit = limit + 0, per = pick(per, was.per, 60000) + 0,
    burst = burst == '*' and 0 or pick(burst, was.burst, 0) + 0,
    dimension = pick(dimension, was.dimension, '-'), scope = pick(scope, was.scope, '-'), mode = pick(mode, was.mode, 'e'),
    source = '-', from = is_same and old.from or seq + 1, tat = is_same and old.tat or nil,
    most = is_same and old.most or nil,
  }
end

local EDITS = { budgets = edit_budget, limits = edit_limit }
local POINTERS = { budgets = 'budgets', limits = 'rate_limits' }

-- The rules of a kind after changes; nil and the refusal.
local function edited(level, kind, changes)
  local list = {}
  for n, rule in ipairs(level[kind]) do list[n] = rule end
  for word in gmatch(changes, '%S+') do
    local id, rest = match(word, '^([^,]+),(.*)$')
    local at = #list + 1
    for n, rule in ipairs(list) do if rule.id == id then at = n end end
    local old = list[at]
    if rest == '-' then
      if old then table.remove(list, at) end
    elseif rest == '!' then
      if not old then return nil, format('0 no_rule %s/%s', POINTERS[kind], id) end
      list[at] = levels.parse_rule(levels.pack_budget(old))
      levels.begin(level, list[at])
    else
      list[at] = EDITS[kind](level, id, rest, old)
      if not list[at] then return nil, format('0 incomplete_rule %s/%s', POINTERS[kind], id) end
    end
  end
  if levels.plans.own(list) > RULES_MAX then return nil, '0 too_many_rules' end
  return levels.plans.merged(level, kind, list)
end

-- A flag after a change: "" for one that stays, else 0 or 1.
local function flag(new, old)
  if new == '' then return old end
  return new == '1'
end

-- What a level would be after changes: its rules, or nil and the refusal. Nothing is changed yet.
function levels.planned(user, budgets, limits, suspended, pool, use_pools, velocity)
  local level = levels.at(user) or levels.parse(user)
  levels.roll(level)
  local refusal
  budgets, refusal = edited(level, 'budgets', budgets)
  if not refusal then limits, refusal = edited(level, 'limits', limits) end
  if refusal then return nil, refusal end
  return {
    level = level, budgets = budgets, limits = limits, suspended = flag(suspended, level.suspended),
    breaker = levels.breakers.edited(velocity, level.breaker),
    is_pool = flag(pool, level.is_pool), is_apart = not flag(use_pools, not level.is_apart),
  }
end

-- Makes a level what was planned. Answers whether it has rules.
function levels.adopt(plan)
  local level, counts = plan.level, #plan.budgets + #plan.limits > 0 or plan.breaker ~= nil
  level.budgets, level.limits, level.suspended = plan.budgets, plan.limits, plan.suspended
  level.breaker, level.is_pool, level.is_apart = plan.breaker, plan.is_pool, plan.is_apart
  if counts and level.since == 0 then level.since = seq + 1 end
  if not counts then level.since, level.charged, level.reserved, level.holds, level.requests = 0, 0, 0, 0, 0 end
  local was_there = levels.known[level.user] and not level.is_gone
  level.is_gone = not (counts or level.suspended or level.is_pool or level.is_apart)
  if was_there or not level.is_gone then
    level.has_new_terms = true
    levels.touch(level)
  end
  levels.count = levels.count + (level.is_gone and 0 or 1) - (was_there and 1 or 0)
  levels.known[level.user], levels.of_path = level, {}
  return not level.is_gone
end
