-- Tells what a deduct of an amount would do now, and changes nothing.
-- ARGV    user_id, amount
-- Answers ok user_id would (ok, or the word of its refusal) short next_credits_at_ms next_credits_amount (0 0 = nothing
--         scheduled) overdraft_limit violations, then for each grant that would burn ";" grant_id amount, then ";" and the
--         balances
local EXPLAIN_GRANTS_MAX = 100

-- When the next scheduled grant starts, and its amount; 0, 0 where none is.
local function next_credits(a)
  local from, page = '[' .. a.user .. ' ', nil
  repeat
    page = redis.call('ZRANGEBYLEX', AGENDA, from, '(' .. a.user .. '!', 'LIMIT', '0', '100')
    for _, member in ipairs(page) do
      local kind, id = match(member, '^%S+ %d+ (%a) (%S+)$')
      if kind == 's' then return grant_of(a, id).effective, grant_of(a, id).amount end
    end
    from = '(' .. (page[#page] or '')
  until #page < 100
  return 0, 0
end

-- The first of the waiting grants of a class behind a member of the order (nil: of all of them), and its sort key.
local function waiting_behind(a, class, member)
  local from = member and '(' .. member or '[' .. a.user .. ' ' .. class .. ' '
  local found = redis.call('ZRANGEBYLEX', ORDER, from, '(' .. a.user .. ' ' .. class .. '!', 'LIMIT', '0', '1')[1]
  return found and { member = found, key = sub(found, #a.user + #class + 3), g = grant_of(a, match(found, '(%S+)$')) }
end

-- Which grants would burn for an amount that is usable, each as "grant_id amount".
local function burns_of(a, left, purpose)
  local parts, lanes = {}, {}
  if a.front then lanes[1] = { class = 'L', key = sort_key(a.front), g = a.front } end
  for _, r in ipairs(a.restrictions) do
    local first = only.fits(r.only, purpose) and waiting_behind(a, r.class)
    if first then first.class, lanes[#lanes + 1] = r.class, first end
  end
  while left > 0 and #parts < EXPLAIN_GRANTS_MAX do
    local best = 1
    for n = 2, #lanes do
      local is_first = only.burns_before(lanes[n].key, lanes[best].key, lanes[best].class ~= 'L')
      if is_first then best = n end
    end
    local one = lanes[best]
    local part = math.min(left, one.g.remaining)
    parts[#parts + 1], left = format('%s %d', one.g.id, part), left - part
    local following = waiting_behind(a, one.class, one.member)
    if following then following.class, lanes[best] = one.class, following else table.remove(lanes, best) end
  end
  return parts
end

function operations.explain(i)
  local a, amount = figures_of(account_of(ARGV[i])), ARGV[i + 1] + 0
  write_all()
  local purpose = only.purpose(i)
  local parts = burns_of(a, math.min(amount, only.usable(a, purpose)), purpose)
  local next_at, next_amount = next_credits(a)
  local available = pools.available(pools.payers_of(a, purpose))
  local ask = { is_new = true, amount = amount, required = amount, short = amount > available, spendable = available }
  ask.purpose = purpose
  ask.requests = amount > 0 and 1 or 0
  local would, violations = admission.would_be(a, ask)
  return format('ok %s %s %d %d %d %d %s;', a.user, would, math.max(0, amount - available), next_at, next_amount,
    a.overdraft_limit, violations) .. concat(parts, ';') .. ';' .. balances(a, purpose)
    .. pools.told_of(a, amount, purpose)
    .. (levels and levels.figures(a.user) or '')
end
