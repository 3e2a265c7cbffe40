-- Settles a reservation for what was really used.
-- ARGV    reservation_id, amount ("" = all that is held), over (what is charged beyond what is held: cap: what is free
--         | reject: refused where that does not cover it | overdraft: what is free, then debt up to the limit | hold_only:
--         refused), shortfall (what is not covered then: partial: told as uncovered | reject: refused)
-- Answers ok user_id reservation_id transaction_id charged released forfeited uncovered late (then, where a budget cut it,
--         "!" and its id) | insufficient user_id required violations (the hold stays)
--         | budget_reached user_id required violations (likewise) | overflow; then the balances
--         | not_found | finished state user_id charged
-- Writes  accounts, grants, order, holds, agenda, due, counters, recent, outbox (commit, deduct, grant_expired)

-- What can be charged beyond a hold: what is free, then debt where allowed, and what cuts it where budgets leave less (what is
-- held is never cut). Nil, and the refusal, where the caller wants that.
local function chargeable(payers, hold, requested, held, over, shortfall)
  local a, beyond = payers[1], math.max(0, requested - held)
  if over == 'hold_only' and requested > math.max(held, hold.ended and hold.amount or 0) then
    return nil, format('0 insufficient %s %d -', a.user, requested) .. balances(a, payers.purpose)
  end
  if beyond == 0 then return 0, 0, '' end
  local available = pools.available(payers)
  local free, on_debt = math.min(beyond, available), 0
  if over == 'overdraft' then on_debt = math.min(beyond - free, pools.debt_room(payers)) end
  local ask = {
    amount = beyond, required = requested, short = free + on_debt < beyond, spendable = available, hold = hold,
    kept = requested - beyond, purpose = payers.purpose,
  }
  if over == 'reject' or shortfall == 'reject' then
    local refused = admission.refuse(a, ask)
    return not refused and free, refused or on_debt, ''
  end
  ask.amount = free + on_debt
  local most, id = admission.allowed(a, ask)
  free = math.min(free, most)
  return free, math.min(on_debt, most - free), id and ' !' .. id or ''
end

-- How the row of a hold that was priced says what is charged, and what stands behind the answer: all of it is its own price.
-- The price of a usage is told already (operations/commit_usage.lua).
local function price_told(hold, is_all)
  if not hold.price or sub(current_extra, 1, 8) == '"price":' then return '', '' end
  if not is_all then return ',"priced":false', '' end
  return ',"price":"' .. hold.price .. '"', ' $' .. hold.price
end

local function commit_hold(hold, requested, over, shortfall, ended, is_all)
  local held = ended and {} or pools.held(hold)
  local a = account_of(hold.user)
  local total = pools.total(held)
  local payers = pools.payers_of(a, only.purpose_of(hold))
  local free, on_debt, limited = chargeable(payers, hold, requested, total, over, shortfall)
  if not free then return on_debt end
  if spent_of(a) + requested > AMOUNT_MAX then return '0 overflow' .. balances(a) end
  local shares = pools.shares_beyond(payers, held, free, on_debt)
  if pools.overflow(shares) then return '0 overflow' .. balances(a) end

  local kept = math.min(requested, total)
  pools.end_held(held, kept)
  pools.take(shares)
  local charged, forfeited = kept + free + on_debt, pools.forfeited(held)
  local rows_of = pools.rows_of_commit(hold, held, shares, ended, requested - charged)
  local member, priced = price_told(hold, is_all)
  rows_of[1].detail = join(rows_of[1].detail .. member .. api_keys.told(hold)
    .. pools.in_all(rows_of, ended and hold.amount or total, charged), admission.limited_member(limited))
  local answer = pools.record(a.user, rows_of, now, function(transaction)
    return format('ok %s %s %s %d %d %d %d %d', a.user, hold.id, transaction, charged, total - kept, forfeited,
      requested - charged, ended and 1 or 0) .. pools.balances(a, shares.purpose) .. limited .. pools.told(shares) .. priced
  end, current_key, current_extra)
  pools.forfeit(held, now)
  remember_end(hold, 'committed', charged, requested, now, answer, ended and hold.amount or total)
  return answer
end

function operations.commit(i)
  local id, amount, over, shortfall = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local hold = hold_of(id)
  if hold then account_of(hold.user) end -- settles; the hold may end by that
  hold = hold_of(id)
  local is_all = amount == ''
  if hold then
    local asked = is_all and pools.total(pools.held(hold)) or amount + 0
    return commit_hold(hold, asked, over, shortfall, false, is_all)
  end
  local past = finished(id)
  if not past then return '0 not_found' end
  local requested = is_all and past.amount or amount + 0
  if past.state == 'committed' and past.requested == requested then return '1 ' .. past.answer end
  if past.state == 'expired' and now - past.ended <= late_commit_grace_ms then
    return commit_hold(past, requested, over, shortfall, true, is_all)
  end
  return refuse_finished(past)
end
