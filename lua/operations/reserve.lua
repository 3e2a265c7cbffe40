-- Holds an amount: it leaves the grants now and waits in a reservation for commit, release or its end.
-- ARGV    user_id, reservation_id, amount, ttl_ms, chosen (1 when the caller chose the id), at_end (release | charge: what
--         becomes of it when nobody settles it)
-- Answers ok user_id reservation_id amount expires_at_ms expires_in_ms | insufficient user_id required | suspended
--         | too_many; then the balances | key_reused | outbox_full
-- Writes  accounts, grants, order, holds, agenda, due, recent, outbox (reserve)
function operations.reserve(i)
  local user, id, amount, ttl_ms, chosen = ARGV[i], ARGV[i + 1], ARGV[i + 2] + 0, ARGV[i + 3] + 0, ARGV[i + 4] == '1'
  local charged_at_end = ARGV[i + 5] == 'charge'
  if chosen then
    local first = recent('c ' .. id)
    if first then return replay(first) end
    if hold_of(id) or finished(id) then return '0 key_reused' end
  end
  local a = account_of(user)
  if a.suspended ~= '-' then return '0 suspended' .. balances(a) end
  if outbox_full() then return '0 outbox_full' end
  if amount > a.available then return format('0 insufficient %s %.0f', user, amount) .. balances(a) end
  if a.hold_count >= reservations_max then return '0 too_many' .. balances(a) end

  local hold = {
    id = id, user = user, amount = amount, ends = now + ttl_ms, created = now, charged_at_end = charged_at_end, draws = {},
  }
  local draws = draw(a, amount, true)
  add_draws(hold, draws)
  holds[id] = hold
  a.hold_count = a.hold_count + 1
  schedule(a, hold.ends, 'h', id)
  local detail = format('"reservation_id":"%s","expires_at":%.0f', id, hold.ends)
  if charged_at_end then detail = detail .. ',"at_end":"charge"' end
  record(a, 'reserve', amount, draws, now, detail, current_key, current_extra)
  local answer = format('ok %s %s %.0f %.0f %.0f', user, id, amount, hold.ends, ttl_ms) .. balances(a)
  if chosen then remember_answer('c ', id, current_fingerprint, answer) end
  return answer
end
