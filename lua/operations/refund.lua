-- Gives back part of an earlier charge: of all who paid it the debt first, then what was drawn, newest first.
-- ARGV    user_id, transaction_id (of the charge), amount ("" = all that is left of it), path (whose charge it is), charges (how
--         many rows it has, one for each who paid, that of the path first);
--         then each of the charges: payer, transaction_id, charged, refunded (before, as the ledger knows it), draws ("grant_id
--         amount grant_id amount ...", of a restricted grant "grant_id=tag,tag"), charged_at_ms, charged_seq
-- Answers ok user_id transaction_id amount forfeited left | exceeds user_id left; then the balances
-- Writes  accounts, grants, order, agenda, due, counters, recent, outbox (refund, grant_expired)
local CHARGE_ARGUMENTS = 7

-- The part of each draw that a refund of `amount` covers, when `before` was refunded already. Debt was drawn last.
local function refund_parts(draws, charged, before, amount)
  local parts, from_grants = {}, 0
  for n = 2, #draws, 2 do from_grants = from_grants + draws[n] end
  local function cover(part)
    local skipped = math.min(before, part)
    local covered = math.min(amount, part - skipped)
    before, amount = before - skipped, amount - covered
    return covered
  end
  local debt_part = cover(charged - from_grants)
  for n = #draws, 2, -2 do parts[#parts + 1], parts[#parts + 2] = draws[n - 1], cover(draws[n]) end
  return parts, debt_part
end

-- A row of the charge: what is left of it, in debt and in all; never more than the account has spent.
local function charge_at(at)
  local on_debt
  local one = {
    a = account_of(ARGV[at]), id = ARGV[at + 1], charged = ARGV[at + 2] + 0, drawn = {}, at = ARGV[at + 5] + 0,
    seq = ARGV[at + 6] + 0, amount = 0, only = {},
  }
  one.before = math.max((recent('f ' .. one.id) or '0') + 0, ARGV[at + 3] + 0)
  one.left, on_debt = math.max(0, math.min(one.charged - one.before, spent_of(one.a))), one.charged
  for id, tags, part in gmatch(ARGV[at + 4], '([^ =]+)=?(%S*) (%d+)') do
    one.only[id] = tags ~= '' and tags or nil
    one.drawn[#one.drawn + 1], one.drawn[#one.drawn + 2] = id, part + 0
    on_debt = on_debt - part
  end
  one.debt_left = math.min(one.left, math.max(0, on_debt - one.before))
  return one
end

-- What of an amount each row gives back: the debt of all of them first, that of the last who paid first.
local function divide(charges, amount)
  for _, member in ipairs({ 'debt_left', 'left' }) do
    for n = #charges, 1, -1 do
      local one = charges[n]
      local part = math.min(amount, one[member] - (member == 'left' and one.amount or 0))
      one.amount, amount = one.amount + part, amount - part
    end
  end
end

-- Gives back what one row does.
local function give_back(one)
  local a, amount = one.a, one.amount
  one.draws, one.forfeits, one.forfeited = {}, {}, 0
  local parts, debt_part = refund_parts(one.drawn, one.charged, one.before, amount)
  local on_debt, homeless = math.min(debt_part, a.debt), {}
  a.debt = a.debt - on_debt
  add_homeless(homeless, '', debt_part - on_debt)
  for n = 1, #parts, 2 do
    local g, part = grant_of(a, parts[n]), parts[n + 1]
    local room = g and (g.state ~= '-' or g.class ~= 'S' and g.remaining + g.reserved + part <= terms_of(g).amount)
    if room and one.only[parts[n]] then room = g.only == one.only[parts[n]] end
    if not room then -- forgotten, and the id may be another grant's by now
      add_homeless(homeless, one.only[parts[n]] or '', part)
    elseif part > 0 and g.state ~= '-' then
      only.add(a, g, part)
      only.forfeit(a, g, part)
      one.forfeited = one.forfeited + part
      one.forfeits[#one.forfeits + 1], one.forfeits[#one.forfeits + 2] = g, part
    elseif part > 0 then
      arrive(a, g, part)
      one.draws[#one.draws + 1], one.draws[#one.draws + 2] = g, part
    end
  end
  for number, of in ipairs(homeless) do
    one.draws[#one.draws + 1], one.draws[#one.draws + 2] = refund_to_new_grant(a, of.amount, of.tags, number), of.amount
  end
  change_account(a)
  recent_writes['f ' .. one.id] = format('%d', one.before + amount)
end

function operations.refund(i)
  local a, charges, given, left, path = account_of(ARGV[i]), {}, {}, 0, ARGV[i + 3]
  for n = 1, ARGV[i + 4] + 0 do
    charges[n] = charge_at(i + 5 + (n - 1) * CHARGE_ARGUMENTS)
    left = left + charges[n].left
  end
  local amount = ARGV[i + 2] == '' and left or ARGV[i + 2] + 0
  if amount > left or left == 0 then return format('0 exceeds %s %d', a.user, left) .. balances(a) end

  divide(charges, amount)
  local rows_of = {}
  for n, one in ipairs(charges) do
    if n == 1 or one.amount > 0 then
      give_back(one)
      given[#given + 1] = one
      rows_of[#rows_of + 1] = {
        kind = 'refund', a = one.a, amount = one.amount, draws = one.draws,
        detail = format('"refund_of":"%s","forfeited":%d,"left":%d', one.id, one.forfeited, one.left - one.amount)
          .. told_of_made(one),
        counts = function() levels.refund(path, one.amount, one.at, one.seq) end,
      }
    end
  end
  local answer = pools.record(path, rows_of, now, function(transaction)
    return format('ok %s %s %d %d %d', a.user, transaction, amount, pools.forfeited(given), left - amount) .. pools.balances(a)
  end, current_key, current_extra)
  pools.forfeit(given, now)
  return answer
end
