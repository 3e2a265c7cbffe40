-- Spends credits in one step.
-- What it is for is told by the caller (state/restriction.lua).
-- ARGV    user_id, amount, shortfall (reject | partial | overdraft | owed: it was served already, so no rule refuses or cuts it;
--         grants pay as far as they go, then debt as far as its limit allows)
-- Answers ok user_id transaction_id amount taken uncovered (then, where a budget cut it, "!" and its id)
--         | insufficient user_id required violations | budget_reached user_id required violations | suspended violations
--         | rate_limited violations | overflow; then the balances | outbox_full
-- Writes  accounts, grants, order, agenda, due, counters, outbox (deduct)

-- Takes what each pays of an amount. Answers the answer.
local function charge_each(a, shares, amount, limited)
  local rows_of, taken = {}, 0
  pools.take(shares)
  for n, one in ipairs(shares) do
    taken = taken + one.paid
    if n == 1 or one.paid > 0 then
      rows_of[#rows_of + 1] = {
        kind = 'deduct', a = one.a, amount = one.paid, draws = one.draws,
        counts = function() levels.charge(a.user, one.paid, now, n == 1 and 1 or nil) end,
      }
    end
  end
  rows_of[1].detail = join(taken < amount and format('"uncovered":%d', amount - taken) or '', admission.limited_member(limited))
  return pools.record(a.user, rows_of, now, function(transaction)
    return format('ok %s %s %d %d %d', a.user, transaction, amount, taken, amount - taken)
      .. balances(a, shares.purpose) .. limited .. pools.told(shares)
  end, current_key, current_extra)
end

function operations.deduct(i)
  local a, amount, shortfall = account_of(ARGV[i]), ARGV[i + 1] + 0, ARGV[i + 2]
  local is_owed = shortfall == 'owed'
  local refused = not is_owed and admission.refuse_suspended(a)
  if refused then return refused end
  if amount > 0 and outbox_full() then return '0 outbox_full' end
  local payers = pools.payers_of(a, only.purpose(i))
  local is_partial, available, on_debt = shortfall == 'partial', pools.available(payers), 0
  if shortfall == 'overdraft' or is_owed then on_debt = math.max(0, amount - available) end
  local debt_room = on_debt > 0 and pools.debt_room(payers) or 0
  if is_owed then on_debt = math.min(on_debt, debt_room) end
  local short = is_partial and amount > 0 and available == 0 or not is_partial and amount - on_debt > available
    or on_debt > debt_room
  local ask = {
    amount = is_partial and math.min(amount, 1) or amount, required = amount, short = short, spendable = available,
    requests = amount > 0 and 1 or 0, purpose = payers.purpose,
  }
  local is_nothing = amount > 0 and available == 0 and on_debt == 0
  refused = (not is_owed or is_nothing) and admission.refuse(a, ask)
  if refused then return refused end
  if spent_of(a) + amount > AMOUNT_MAX then return '0 overflow' .. balances(a) end
  if amount == 0 then return format('ok %s - 0 0 0', a.user) .. balances(a, payers.purpose) end

  local from_grants, limited = amount - on_debt, ''
  if is_owed then from_grants = math.min(amount, available) end
  if is_partial then from_grants, limited = admission.within_rules(a, math.min(amount, available)) end
  local shares = pools.shares(payers, from_grants, on_debt)
  if pools.overflow(shares) then return '0 overflow' .. balances(a) end
  if levels and not is_owed then levels.buckets.take(a.user, ask) end -- that was another time
  return charge_each(a, shares, amount, limited)
end
