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

function operations.explain(i)
  local a, amount = figures_of(account_of(ARGV[i])), ARGV[i + 1] + 0
  write_all()
  local parts, left = {}, math.min(amount, a.available)
  local g, from = a.front, '[' .. a.user .. ' L '
  while left > 0 and #parts < EXPLAIN_GRANTS_MAX do
    local part = math.min(left, g.remaining)
    parts[#parts + 1] = format('%s %d', g.id, part)
    left = left - part
    local following = redis.call('ZRANGEBYLEX', ORDER, from, '(' .. a.user .. ' L!', 'LIMIT', '0', '1')[1]
    if not following then break end
    g, from = grant_of(a, match(following, '(%S+)$')), '(' .. following
  end
  local next_at, next_amount = next_credits(a)
  local available = pools.available(pools.payers_of(a))
  local ask = { is_new = true, amount = amount, required = amount, short = amount > available, spendable = available }
  ask.requests = amount > 0 and 1 or 0
  local would, violations = admission.would_be(a, ask)
  return format('ok %s %s %d %d %d %d %s;', a.user, would, math.max(0, amount - available), next_at, next_amount,
    a.overdraft_limit, violations) .. concat(parts, ';') .. ';' .. balances(a) .. pools.told_of(a, amount)
end
