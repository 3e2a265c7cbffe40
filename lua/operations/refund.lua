-- Gives back part of an earlier charge, newest draw first.
-- ARGV    user_id, transaction_id (of the charge), amount ("" = all that is left of it), charged, refunded (before, as the
--         ledger knows it), draws (of the charge: "grant_id amount grant_id amount ..."), charged_at_ms, charged_seq
-- Answers ok user_id transaction_id amount forfeited left | exceeds user_id left; then the balances
-- Writes  accounts, grants, order, agenda, due, counters, recent, outbox (refund, grant_expired)

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

-- Credits without a grant to return to: its debt has been paid since, or Redis has forgotten it.
local function refund_to_new_grant(a, amount)
  local id = format('refund-%s-%d', partition, seq + 1)
  local g = {
    id = id, amount = amount, remaining = 0, reserved = 0, priority = 10, effective = now, expires = NEVER,
    created = now, shelved = 0, class = 'N', state = '-', source = 'refund', at_end = '',
  }
  a.grants[id], a.grant_count = g, figures_of(a).grant_count + 1
  arrive(a, g, amount)
  return g
end

function operations.refund(i)
  local a, charge, charged = account_of(ARGV[i]), ARGV[i + 1], ARGV[i + 3] + 0
  local before = math.max((recent('f ' .. charge) or '0') + 0, ARGV[i + 4] + 0)
  local left = math.min(charged - before, spent_of(a)) -- never below zero, whatever the ledger has forgotten
  local amount = ARGV[i + 2] == '' and left or ARGV[i + 2] + 0
  if amount > left or left == 0 then return format('0 exceeds %s %d', a.user, left) .. balances(a) end

  local drawn, draws, forfeits, forfeited = {}, {}, {}, 0
  for id, part in gmatch(ARGV[i + 5], '(%S+) (%d+)') do drawn[#drawn + 1], drawn[#drawn + 2] = id, part + 0 end
  local parts, homeless = refund_parts(drawn, charged, before, amount)
  local on_debt = math.min(homeless, a.debt)
  a.debt, homeless = a.debt - on_debt, homeless - on_debt
  for n = 1, #parts, 2 do
    local g, part = grant_of(a, parts[n]), parts[n + 1]
    local room = g and (g.state ~= '-' or g.class ~= 'S' and g.remaining + g.reserved + part <= terms_of(g).amount)
    if not room then -- forgotten, and the id may be another grant's by now
      homeless = homeless + part
    elseif part > 0 and g.state ~= '-' then
      a.available, forfeited = a.available + part, forfeited + part
      forfeits[#forfeits + 1], forfeits[#forfeits + 2] = g, part
    elseif part > 0 then
      arrive(a, g, part)
      draws[#draws + 1], draws[#draws + 2] = g, part
    end
  end
  if homeless > 0 then draws[#draws + 1], draws[#draws + 2] = refund_to_new_grant(a, homeless), homeless end
  change_account(a)
  a.forfeiting = forfeited
  if levels then levels.refund(a.user, amount, ARGV[i + 6] + 0, ARGV[i + 7] + 0) end
  recent_writes['f ' .. charge] = format('%d', before + amount)
  local detail = format('"refund_of":"%s","forfeited":%d,"left":%d', charge, forfeited, left - amount)
  local transaction = record(a, 'refund', amount, draws, now, detail, current_key, current_extra)
  forfeit(a, forfeits, now)
  return format('ok %s %s %d %d %d', a.user, transaction, amount, forfeited, left - amount) .. balances(a)
end
