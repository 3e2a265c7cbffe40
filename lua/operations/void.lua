-- Ends a grant early: its free rest is void; what open reservations hold of it stays theirs.
-- ARGV    user_id, grant_id
-- Answers ok user_id grant_id transaction_id voided | over user_id state (expired | voided); then the balances | not_found
-- Writes  accounts, grants, order, agenda, due, outbox (void)
function operations.void(i)
  local a, id = figures_of(account_of(ARGV[i])), ARGV[i + 1]
  local g = grant_of(a, id)
  if not g then return '0 not_found' end
  if g.state ~= '-' then return format('0 over %s %s', a.user, g.state == 'e' and 'expired' or 'voided') .. balances(a) end

  local voided = terms_of(g).remaining
  if g.class == 'S' then
    a.scheduled = a.scheduled - g.amount
    unschedule(a, g.effective, 's', id)
  else
    only.add(a, g, -voided)
    a.voided = a.voided + voided
  end
  local booked = g.class == 'S' and 0 or voided
  if g.expires < NEVER then unschedule(a, g.expires, 'x', id) end
  g.state, g.remaining = 'v', 0
  place(a, g)
  change_account(a)
  local detail = format('"grant_id":"%s","voided":%d', id, voided)
  local transaction = record(a, 'void', booked, { g, booked }, now, detail, current_key, current_extra)
  return format('ok %s %s %s %d', a.user, id, transaction, voided) .. balances(a)
end
