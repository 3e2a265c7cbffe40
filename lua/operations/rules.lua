-- Reads the rules of an account, and what they have counted by now. What is due elsewhere is settled first, as before a refusal.
-- ARGV    user_id
-- Answers ok user_id charged held holds requests pool use_pools (1 | 0), then for each rule ";" and its members, then ";" and
--         the balances
function operations.rules(i)
  local a = account_of(ARGV[i])
  local level = levels and levels.at(a.user)
  if not level then return format('ok %s 0 0 0 0 0 1;;', a.user) .. balances(a) end
  admission.settle_due()
  levels.roll(level)
  return format('ok %s %d %d %d %d %d %d', a.user, level.charged, level.reserved, level.holds, level.requests,
    level.is_pool and 1 or 0, level.is_apart and 0 or 1) .. levels.listed(level) .. ';' .. balances(a)
end
