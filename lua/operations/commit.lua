-- Settles a reservation for what was really used.
-- ARGV    reservation_id, amount ("" = all that is held), over (what is charged beyond what is held: cap: what is free
--         | reject: refused where that does not cover it | overdraft: what is free, then debt up to the limit | hold_only:
--         refused), shortfall (what is not covered then: partial: told as uncovered | reject: refused)
-- Answers ok user_id reservation_id transaction_id charged released forfeited uncovered late (then, where a budget cut it,
--         "!" and its id) | insufficient user_id required violations (the hold stays)
--         | budget_reached user_id required violations (likewise) | overflow; then the balances
--         | not_found | finished state user_id charged
-- Writes  accounts, grants, order, holds, agenda, due, counters, recent, outbox (commit, grant_expired)

-- What can be charged beyond a hold: what is free, then debt where allowed, and what cuts it where budgets leave less (what is
-- held is never cut). Nil, and the refusal, where the caller wants that.
local function chargeable(a, hold, requested, held, over, shortfall)
  local beyond = math.max(0, requested - held)
  if over == 'hold_only' and requested > hold.amount then
    return nil, format('0 insufficient %s %d -', a.user, requested) .. balances(a)
  end
  if beyond == 0 then return 0, 0, '' end
  local free, on_debt = math.min(beyond, a.available), 0
  if over == 'overdraft' then on_debt = math.max(0, math.min(beyond - free, figures_of(a).overdraft_limit - a.debt)) end
  local ask = { amount = beyond, required = requested, short = free + on_debt < beyond, hold = hold, kept = requested - beyond }
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
  local a = account_of(hold.user)
  local held = ended and 0 or hold.amount
  local free, on_debt, limited = chargeable(a, hold, requested, held, over, shortfall)
  if not free then return on_debt end
  if spent_of(a) + requested > AMOUNT_MAX then return '0 overflow' .. balances(a) end

  local draws, forfeits, forfeited = {}, {}, 0
  if not ended then draws, forfeits, forfeited = end_hold(a, hold, math.min(requested, held)) end
  local more = draw(a, free)
  for n = 1, #more do draws[#draws + 1] = more[n] end
  if on_debt > 0 then welcome(a) end
  a.debt = a.debt + on_debt
  local charged = math.min(requested, held) + free + on_debt
  if levels then levels.charge(a.user, charged, now) end
  local released, uncovered = held - math.min(requested, held), requested - charged
  local detail = format('"reservation_id":"%s","released":%d,"forfeited":%d,"uncovered":%d,"late":%s', hold.id,
    released, forfeited, uncovered, ended and 'true' or 'false')
  local member, priced = price_told(hold, is_all)
  detail = join(detail .. member .. api_keys.told(hold), admission.limited_member(limited))
  local transaction = record(a, 'commit', charged, draws, now, detail, current_key, current_extra)
  forfeit(a, forfeits, now)
  local answer = format('ok %s %s %s %d %d %d %d %d', a.user, hold.id, transaction, charged, released, forfeited,
    uncovered, ended and 1 or 0) .. balances(a) .. limited .. priced
  remember_end(hold, 'committed', charged, requested, now, answer)
  return answer
end

function operations.commit(i)
  local id, amount, over, shortfall = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local hold = hold_of(id)
  if hold then account_of(hold.user) end -- settles; the hold may end by that
  hold = hold_of(id)
  local is_all = amount == ''
  if hold then return commit_hold(hold, is_all and hold.amount or amount + 0, over, shortfall, false, is_all) end
  local past = finished(id)
  if not past then return '0 not_found' end
  local requested = is_all and past.amount or amount + 0
  if past.state == 'committed' and past.requested == requested then return '1 ' .. past.answer end
  if past.state == 'expired' and now - past.ended <= late_commit_grace_ms then
    return commit_hold(past, requested, over, shortfall, true, is_all)
  end
  return refuse_finished(past)
end
