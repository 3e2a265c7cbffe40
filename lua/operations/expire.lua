-- Settles what is due for an idle account and does nothing else; the sweeper calls it with user ids from DUE.
-- ARGV    user_id
-- Answers ok user_id transactions (made), then the balances
-- Writes  whatever falls due: accounts, grants, order, holds, agenda, due, recent, outbox
function operations.expire(i)
  local first = seq
  local a = account_of(ARGV[i])
  return format('ok %s %d', a.user, seq - first) .. balances(a)
end
