-- Puts an account back as the store has it, grants and open holds included; books nothing. For a partition in repair.
-- ARGV    user_id, overdraft_limit, suspended (0 | 1), low_credit_thresholds (behind "~" the word of state/top_up.lua),
--         debt, granted, spent, expired, voided,
--         metadata (JSON text, "" = none), rate_card, price_multiplier (millionths; "-" = none), rules, counters (of the level,
--         as state/level.lua has them, "" = none), grants (how many), reservations (how many);
--         then each of the grants: grant_id, amount, remaining, reserved, priority, effective_at_ms, expires_at_ms,
--         created_at_ms, state (scheduled | active | exhausted | expired | voided), source, rollover_max, rollover_ms,
--         plan_group, renews, only (as of grant.lua);
--         then each of the reservations: reservation_id, amount, expires_at_ms, created_at_ms, at_end (release | charge),
--         draws ("grant_id amount grant_id amount ..."), price (of its reserve, "" = it was not priced), api_key (by which it was
--         asked for, as state/hold.lua has it, "" = none), seq (of its reserve; 0 = before levels counted), tags (what it
--         is for, "" = nothing that was told)
-- Answers ok user_id, then the balances
-- Writes  accounts, grants, order, holds, agenda, due, profiles, rates, rules, counters
local GRANT_ARGUMENTS, HOLD_ARGUMENTS = 15, 10

local function restore_grant(a, at)
  local state, effective = ARGV[at + 8], ARGV[at + 5] + 0
  local g = {
    id = ARGV[at], amount = ARGV[at + 1] + 0, remaining = ARGV[at + 2] + 0, reserved = ARGV[at + 3] + 0,
    priority = ARGV[at + 4] + 0, effective = effective, expires = ARGV[at + 6] + 0, created = ARGV[at + 7] + 0,
    state = state == 'expired' and 'e' or state == 'voided' and 'v' or '-', source = ARGV[at + 9], shelved = 0,
    at_end = pack_at_end(ARGV[at + 10], ARGV[at + 11], ARGV[at + 12], ARGV[at + 13]), class = 'N',
    only = ARGV[at + 14] ~= '' and ARGV[at + 14] or nil,
  }
  a.grants[g.id], a.grant_count = g, a.grant_count + 1
  if state == 'scheduled' then
    a.scheduled = a.scheduled + g.amount
    schedule(a, effective, 's', g.id)
  else
    only.add(a, g, g.remaining)
  end
  if g.expires < NEVER and g.state == '-' then schedule(a, g.expires, 'x', g.id) end
  local begins = state == 'scheduled' and effective <= now -- its start is due and will be settled, not skipped
  if begins then set_class(a, g, 'S') else place(a, g) end
  change_grant(a, g)
end

-- A part of a hold comes back before the hold, whose path its pool is above (state/pool.lua): the hold finds its parts.
local function find_parts(a, hold)
  local names = paths.levels_of(a.user)
  for number = #names, 1, -1 do
    local part = names[number] ~= a.user and hold_of(format('%s~%d', hold.id, number))
    if part then
      part.path, hold_writes[part.id] = a.user, part
      hold.parts = format('%s%d', hold.parts and hold.parts .. ',' or '', number)
    end
  end
end

local function restore_hold(a, at)
  local hold = {
    id = ARGV[at], user = a.user, amount = ARGV[at + 1] + 0, ends = ARGV[at + 2] + 0, created = ARGV[at + 3] + 0,
    charged_at_end = ARGV[at + 4] == 'charge', draws = {}, price = ARGV[at + 6] ~= '' and ARGV[at + 6] or nil,
    key = ARGV[at + 7] ~= '' and ARGV[at + 7] or nil, seq = ARGV[at + 8] ~= '0' and ARGV[at + 8] + 0 or nil,
    tags = ARGV[at + 9] ~= '' and ARGV[at + 9] or nil,
  }
  for id, part in gmatch(ARGV[at + 5], '(%S+) (%d+)') do
    hold.draws[#hold.draws + 1], hold.draws[#hold.draws + 2] = id, part + 0
  end
  holds[hold.id], hold_writes[hold.id] = hold, hold
  if match(hold.id, pools.NUMBER_OF_PART) then hold.path = a.user else find_parts(a, hold) end
  a.reserved, a.hold_count = a.reserved + hold.amount, a.hold_count + (hold.path and 0 or 1)
  schedule(a, hold.ends, 'h', hold.id)
end

function operations.restore(i)
  local a = new_account(ARGV[i])
  accounts[a.user] = a
  a.overdraft_limit, a.suspended, a.thresholds = ARGV[i + 1] + 0, ARGV[i + 2] == '1' and 's' or '-', ARGV[i + 3]
  a.debt, a.granted = ARGV[i + 4] + 0, ARGV[i + 5] + 0
  a.expired, a.voided = ARGV[i + 7] + 0, ARGV[i + 8] + 0
  if ARGV[i + 9] ~= '' then profile_writes[a.user] = ARGV[i + 9] end
  local card, multiplier = ARGV[i + 10], ARGV[i + 11]
  if card ~= '-' or multiplier ~= '-' then rate_writes['u ' .. a.user] = card .. ' ' .. multiplier end
  if ARGV[i + 12] ~= '' then
    levels.restore(a.user, ARGV[i + 12], ARGV[i + 13])
    a.has_rules = true
  end
  local at = i + 16
  for _ = 1, ARGV[i + 14] + 0 do
    restore_grant(a, at)
    at = at + GRANT_ARGUMENTS
  end
  for _ = 1, ARGV[i + 15] + 0 do
    restore_hold(a, at)
    at = at + HOLD_ARGUMENTS
  end
  -- A grant in quarantine is missing from the sums of the store: what was spent counts, because refunds are bounded by it.
  a.granted = a.granted + ARGV[i + 6] - spent_of(a)
  if is_stranger(a) then order_writes[' ' .. a.user] = true end
  local used = spent_of(a) + a.expired + a.voided + a.reserved > 0
  a.thresholds = marked_thresholds(a.thresholds, a.available, used and a.available == 0) .. top_ups.of(a)
  change_account(a)
  return format('ok %s', a.user) .. balances(a)
end
