-- Reads an account, with everything due counted as done.
-- ARGV    user_id
-- Answers ok user_id overdraft_limit suspended low_credit_thresholds granted scheduled spent expired voided reservations,
--         then the balances

-- What stands behind what is said of restricted grants: for each restriction "|only=available=next_expires_at_ms".
local function restrictions_told(a)
  local parts = {}
  for n, r in ipairs(a.restrictions) do
    local from, ends = a.user .. ' ' .. r.class, NEVER
    for _, member in ipairs(redis.call('ZRANGEBYLEX', ORDER, '[' .. from .. ' ', '(' .. from .. '!')) do
      if order_writes[member] ~= false then ends = math.min(ends, sub(member, #from + 8, #from + 20) + 0) end
    end
    for _, key in ipairs(r.waiting) do
      if order_writes[from .. ' ' .. key] then ends = math.min(ends, sub(key, 7, 19) + 0) end
    end
    parts[n] = format('|%s=%d=%d', r.only, r.available, ends)
  end
  return concat(parts)
end

function operations.balance(i)
  local a = figures_of(account_of(ARGV[i]))
  local told = format('ok %s %d %s %s %d %d %d %d %d %d', a.user, a.overdraft_limit, a.suspended, bare_thresholds(a.thresholds),
    a.granted, a.scheduled, spent_of(a), a.expired, a.voided, a.hold_count)
  return told .. balances(a) .. restrictions_told(a) .. pools.told_of(a, 0)
end
