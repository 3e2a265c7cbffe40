-- Reads an account, with everything due counted as done.
-- ARGV    user_id
-- Answers ok user_id overdraft_limit suspended low_credit_thresholds granted scheduled spent expired voided reservations,
--         then the balances
function operations.balance(i)
  local a = figures_of(account_of(ARGV[i]))
  local told = format('ok %s %d %s %s %d %d %d %d %d %d', a.user, a.overdraft_limit, a.suspended, bare_thresholds(a.thresholds),
    a.granted, a.scheduled, spent_of(a), a.expired, a.voided, a.hold_count)
  return told .. balances(a) .. pools.told_of(a, 0)
end
