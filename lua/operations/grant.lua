-- Adds a grant of credits to an account; debt is paid first.
-- ARGV    user_id, grant_id, amount, priority, effective_at_ms (0 = now), expires_at_ms (NEVER), source, rollover_max
--         ("" = nothing), rollover_ms, plan_group ("" = no plan's), renews (1 = a renewal in this group follows | 0),
--         late (1 = it was promised before: one that has ended by now is given and ends, and its rest may live on | 0), only
--         (tags of what it may be spent on, in order, with commas between; "" = anything)
-- Answers ok user_id grant_id transaction_id amount | exists | ended | overflow | too_many | too_many_restrictions; then the
--         balances
-- Writes  accounts, grants, order, agenda, due, recent, outbox (grant, or adjust where that is its source)
function operations.grant(i)
  local a, id, amount = figures_of(account_of(ARGV[i])), ARGV[i + 1], ARGV[i + 2] + 0
  local priority, effective, expires = ARGV[i + 3] + 0, ARGV[i + 4] + 0, ARGV[i + 5] + 0
  local is_late = ARGV[i + 11] == '1' and expires <= now
  local tags = ARGV[i + 12] ~= '' and ARGV[i + 12] or nil
  local source, at_end = ARGV[i + 6], pack_at_end(ARGV[i + 7], ARGV[i + 8], ARGV[i + 9], ARGV[i + 10])
  if effective == 0 then effective = is_late and expires - 1 or now end -- late, nobody knows when: before its end
  if grant_of(a, id) then return '0 exists' .. balances(a) end
  if expires <= now and not is_late or expires <= effective then return '0 ended' .. balances(a) end
  if a.granted + a.scheduled + amount > AMOUNT_MAX then return '0 overflow' .. balances(a) end
  if a.grant_count >= grants_max then return '0 too_many' .. balances(a) end
  if tags and only.is_one_too_many(a, tags) then return '0 too_many_restrictions' .. balances(a) end

  welcome(a)
  local g = {
    id = id, amount = amount, remaining = amount, reserved = 0, priority = priority, effective = effective,
    expires = expires, created = now, shelved = 0, class = 'N', state = '-', source = source, at_end = at_end,
    only = tags,
  }
  a.grants[id] = g
  a.grant_count = a.grant_count + 1
  if expires < NEVER and not is_late then schedule(a, expires, 'x', id) end
  local paid = 0
  if effective > now then
    a.scheduled = a.scheduled + amount
    schedule(a, effective, 's', id)
    place(a, g)
  else
    a.granted, g.remaining = a.granted + amount, 0
    paid = arrive(a, g, amount)
  end
  change_account(a)
  top_ups.came(a, id)
  local detail = format('"grant_id":"%s",%s', id, format_terms(g))
  if at_end ~= '' then detail = format('%s,"at_end":"%s"', detail, at_end) end
  local _, _, mark, group = match(at_end, AT_END_PATTERN)
  if mark ~= '' then renewed(a, group) end
  local kind = 'grant'
  if source == 'adjust' then kind = 'adjust' end
  local transaction = record(a, kind, amount, { g, paid }, now, detail, current_key, current_extra)
  if is_late then
    settlers.x(a, id, expires)
    settle_rolled(a) -- its rest may have ended too
  end
  return format('ok %s %s %s %d', a.user, id, transaction, amount) .. balances(a)
end
