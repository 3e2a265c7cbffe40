-- Spends credits in one step.
-- ARGV    user_id, amount, shortfall (reject | partial | overdraft)
-- Answers ok user_id transaction_id amount taken uncovered | insufficient user_id required | suspended | overflow;
--         then the balances | outbox_full
-- Writes  accounts, grants, order, agenda, due, outbox (deduct)
function operations.deduct(i)
  local a, amount, shortfall = account_of(ARGV[i]), ARGV[i + 1] + 0, ARGV[i + 2]
  if a.suspended ~= '-' then return '0 suspended' .. balances(a) end
  if amount > 0 and outbox_full() then return '0 outbox_full' end
  local from_grants = math.min(amount, a.available)
  local on_debt = 0
  if shortfall == 'overdraft' then on_debt = amount - from_grants end
  local short = amount - from_grants - on_debt
  local over_limit = on_debt > 0 and a.debt + on_debt > figures_of(a).overdraft_limit
  if over_limit or short > 0 and (shortfall ~= 'partial' or from_grants == 0) then
    return format('0 insufficient %s %d', a.user, amount) .. balances(a)
  end
  if spent_of(a) + amount > AMOUNT_MAX then return '0 overflow' .. balances(a) end
  if amount == 0 then return format('ok %s - 0 0 0', a.user) .. balances(a) end

  if on_debt > 0 then welcome(a) end
  local draws = draw(a, from_grants)
  local taken = from_grants + on_debt
  a.debt = a.debt + on_debt
  local detail = short > 0 and format('"uncovered":%d', short) or ''
  local transaction = record(a, 'deduct', taken, draws, now, detail, current_key, current_extra)
  return format('ok %s %s %d %d %d', a.user, transaction, amount, taken, short) .. balances(a)
end
