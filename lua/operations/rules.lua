-- Reads the rules of an account, and what they have counted by now. What is due elsewhere is settled first, as before a refusal.
-- ARGV    user_id
-- Answers ok user_id charged held holds requests, then for each rule ";" and its members, then ";" and the balances
function operations.rules(i)
  local a = account_of(ARGV[i])
  local level = levels and levels.at(a.user)
  if not level then return format('ok %s 0 0 0 0;;', a.user) .. balances(a) end
  admission.settle_due()
  levels.roll(level)
  local words = {}
  for n, b in ipairs(level.budgets) do words[n] = levels.pack_budget(b) end
  for _, l in ipairs(level.limits) do words[#words + 1] = levels.pack_limit(l) end
  return format('ok %s %d %d %d %d;', a.user, level.charged, level.reserved, level.holds, level.requests) .. concat(words, ';')
    .. ';' .. balances(a)
end
