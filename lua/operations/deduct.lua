-- Spends credits in one step.
-- ARGV    user_id, amount, shortfall (reject | partial | overdraft | owed: it was served already, so no rule refuses or cuts it;
--         grants pay as far as they go, then debt as far as its limit allows)
-- Answers ok user_id transaction_id amount taken uncovered (then, where a budget cut it, "!" and its id)
--         | insufficient user_id required violations | budget_reached user_id required violations | suspended violations
--         | rate_limited violations | overflow; then the balances | outbox_full
-- Writes  accounts, grants, order, agenda, due, counters, outbox (deduct)
function operations.deduct(i)
  local a, amount, shortfall = account_of(ARGV[i]), ARGV[i + 1] + 0, ARGV[i + 2]
  local is_owed = shortfall == 'owed'
  local refused = not is_owed and admission.refuse_suspended(a)
  if refused then return refused end
  if amount > 0 and outbox_full() then return '0 outbox_full' end
  local is_partial, on_debt = shortfall == 'partial', 0
  if shortfall == 'overdraft' or is_owed then on_debt = math.max(0, amount - a.available) end
  if is_owed and on_debt > 0 then on_debt = math.min(on_debt, math.max(0, figures_of(a).overdraft_limit - a.debt)) end
  local short = is_partial and amount > 0 and a.available == 0 or not is_partial and amount - on_debt > a.available
    or on_debt > 0 and a.debt + on_debt > figures_of(a).overdraft_limit
  local ask = {
    amount = is_partial and math.min(amount, 1) or amount, required = amount, short = short, requests = amount > 0 and 1 or 0,
  }
  local is_nothing = amount > 0 and a.available == 0 and on_debt == 0
  refused = (not is_owed or is_nothing) and admission.refuse(a, ask)
  if refused then return refused end
  if spent_of(a) + amount > AMOUNT_MAX then return '0 overflow' .. balances(a) end
  if amount == 0 then return format('ok %s - 0 0 0', a.user) .. balances(a) end

  local from_grants, limited = amount - on_debt, ''
  if is_owed then from_grants = math.min(amount, a.available) end
  if is_partial then from_grants, limited = admission.within_rules(a, math.min(amount, a.available)) end
  if on_debt > 0 then welcome(a) end
  local draws = draw(a, from_grants)
  local taken = from_grants + on_debt
  a.debt = a.debt + on_debt
  if levels then
    if not is_owed then levels.buckets.take(a.user, ask) end -- that was another time
    levels.charge(a.user, taken, now, 1)
  end
  local detail = taken < amount and format('"uncovered":%d', amount - taken) or ''
  detail = join(detail, admission.limited_member(limited))
  local transaction = record(a, 'deduct', taken, draws, now, detail, current_key, current_extra)
  return format('ok %s %s %d %d %d', a.user, transaction, amount, taken, amount - taken) .. balances(a) .. limited
end
